//! A store that says what it is about to do, so that a test can strike at that moment.

use std::sync::Arc;

use mfpsync_backup::store::{ArchiveStore, Cancel, Connection, Entry, Name, Protection, Result};

/// Is told of each call before it is made.
pub(crate) type Hook = Arc<dyn Fn(&'static str)>;

pub(crate) struct Hooked<S> {
    pub(crate) store: S,
    pub(crate) hook: Hook,
}

impl<S: ArchiveStore> ArchiveStore for Hooked<S> {
    fn connect(&self, cancel: &Cancel) -> Result<Box<dyn Connection>> {
        (self.hook)("connect");
        Ok(Box::new(Inner { connection: self.store.connect(cancel)?, hook: Arc::clone(&self.hook) }))
    }
}

struct Inner {
    connection: Box<dyn Connection>,
    hook: Hook,
}

impl Connection for Inner {
    fn protection(&self) -> Protection {
        self.connection.protection()
    }

    fn room(&mut self) -> Result<u64> {
        (self.hook)("room");
        self.connection.room()
    }

    fn list(&mut self) -> Result<Vec<Entry>> {
        (self.hook)("list");
        self.connection.list()
    }

    fn size(&mut self, name: &Name) -> Result<Option<u64>> {
        (self.hook)("size");
        self.connection.size(name)
    }

    fn create(&mut self, name: &Name) -> Result<()> {
        (self.hook)("create");
        self.connection.create(name)
    }

    fn resume(&mut self, name: &Name, offset: u64) -> Result<()> {
        (self.hook)("resume");
        self.connection.resume(name, offset)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        (self.hook)("write");
        self.connection.write(bytes)
    }

    fn finish(&mut self) -> Result<()> {
        (self.hook)("finish");
        self.connection.finish()
    }

    fn open(&mut self, name: &Name) -> Result<()> {
        (self.hook)("open");
        self.connection.open(name)
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        (self.hook)("read");
        self.connection.read()
    }

    fn rename(&mut self, from: &Name, to: &Name) -> Result<()> {
        (self.hook)("rename");
        self.connection.rename(from, to)
    }

    fn remove(&mut self, name: &Name) -> Result<()> {
        (self.hook)("remove");
        self.connection.remove(name)
    }
}
