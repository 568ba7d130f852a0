//! A store in memory that fails as it is told, for tests: it loses connections before and after it did what was
//! asked, tears writes, alters bytes, and keeps a history of what a reader could have seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ArchiveStore, CHUNK, Cancel, Connection, Entry, Error, Kind, Name, Protection, Result};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It works.
    Done,
    /// It does not happen, and the caller hears this.
    Refused(Kind),
    /// It happens, and the connection breaks before the answer.
    AnswerLost,
    /// Half of it happens, if that can be, and the connection breaks.
    Torn,
    /// It works, with one bit of what was written or read turned over.
    Altered,
}

type Files = BTreeMap<String, Vec<u8>>;

struct Inner {
    files: Files,
    fate: Box<dyn FnMut(&'static str) -> Fate + Send>,
    watch: Box<dyn FnMut(&Files) + Send>,
}

/// The store; clones are the same one.
#[derive(Clone)]
pub(crate) struct MemoryStore(Arc<Mutex<Inner>>);

impl MemoryStore {
    /// A store whose calls end as `fate` says.
    pub(crate) fn new(fate: impl FnMut(&'static str) -> Fate + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            files: Files::new(),
            fate: Box::new(fate),
            watch: Box::new(|_| ()),
        })))
    }

    /// Shows all files to `watch` after every call.
    pub(crate) fn watch(&self, watch: impl FnMut(&Files) + Send + 'static) {
        self.lock().watch = Box::new(watch);
    }

    /// Replaces all files.
    pub(crate) fn put(&self, files: BTreeMap<String, Vec<u8>>) {
        self.lock().files = files;
    }

    /// All files.
    pub(crate) fn files(&self) -> Files {
        self.lock().files.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ArchiveStore for MemoryStore {
    fn connect(&self, cancel: &Cancel) -> Result<Box<dyn Connection>> {
        cancel.check("connect")?;
        match (self.lock().fate)("connect") {
            Fate::Refused(kind) => Err(Error::new("connect", kind)),
            Fate::AnswerLost | Fate::Torn => Err(Error::new("connect", Kind::Lost)),
            Fate::Done | Fate::Altered => {
                Ok(Box::new(Open { store: self.clone(), name: String::new(), at: 0, dead: false }))
            }
        }
    }
}

struct Open {
    store: MemoryStore,
    name: String,
    at: usize,
    dead: bool,
}

impl Open {
    /// Does `act` as the fate of this call says; `act` hears whether to do half, and whether to alter.
    fn call<T>(
        &mut self,
        doing: &'static str,
        act: impl FnOnce(&mut Self, &mut Files, Fate) -> Result<T>,
    ) -> Result<T> {
        if self.dead {
            return Err(Error::new(doing, Kind::Lost));
        }
        let store = self.store.clone();
        let mut inner = store.lock();
        let fate = (inner.fate)(doing);
        if let Fate::Refused(kind) = fate {
            self.dead = kind.class() != super::Class::Fault;
            return Err(Error::new(doing, kind));
        }
        let done = act(self, &mut inner.files, fate);
        let Inner { files, watch, .. } = &mut *inner;
        watch(files);
        if matches!(fate, Fate::AnswerLost | Fate::Torn) {
            self.dead = true;
            return Err(Error::new(doing, Kind::Lost));
        }
        done
    }
}

impl Connection for Open {
    fn protection(&self) -> Protection {
        Protection::Local
    }

    fn room(&mut self) -> Result<u64> {
        self.call("room", |_, _, _| Ok(u64::MAX))
    }

    fn list(&mut self) -> Result<Vec<Entry>> {
        self.call("list", |_, files, _| {
            files
                .iter()
                .map(|(name, bytes)| Ok(Entry { name: Name::parse(name)?, size: bytes.len() as u64 }))
                .collect()
        })
    }

    fn size(&mut self, name: &Name) -> Result<Option<u64>> {
        self.call("size", |_, files, _| Ok(files.get(name.as_str()).map(|bytes| bytes.len() as u64)))
    }

    fn create(&mut self, name: &Name) -> Result<()> {
        self.call("create", |open, files, fate| {
            if files.contains_key(name.as_str()) {
                return Err(Error::new("create", Kind::Exists));
            }
            if fate != Fate::Torn {
                files.insert(name.to_string(), Vec::new());
            }
            (open.name, open.at) = (name.to_string(), 0);
            Ok(())
        })
    }

    fn resume(&mut self, name: &Name, offset: u64) -> Result<()> {
        self.call("resume", |open, files, _| {
            files.get(name.as_str()).ok_or(Error::new("resume", Kind::NotFound))?;
            (open.name, open.at) = (name.to_string(), usize::try_from(offset).unwrap_or(usize::MAX));
            Ok(())
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.call("write", |open, files, fate| {
            let file = files.get_mut(&open.name).ok_or(Error::new("write", Kind::NotFound))?;
            let bytes = if fate == Fate::Torn { &bytes[..bytes.len() / 2] } else { bytes };
            let end = open.at + bytes.len();
            file.resize(file.len().max(end), 0);
            file[open.at..end].copy_from_slice(bytes);
            if let (Fate::Altered, Some(byte)) = (fate, file.get_mut(open.at)) {
                *byte ^= 4;
            }
            open.at = end;
            Ok(())
        })
    }

    fn finish(&mut self) -> Result<()> {
        self.call("finish", |_, _, _| Ok(()))
    }

    fn open(&mut self, name: &Name) -> Result<()> {
        self.call("open", |open, files, _| {
            files.get(name.as_str()).ok_or(Error::new("open", Kind::NotFound))?;
            (open.name, open.at) = (name.to_string(), 0);
            Ok(())
        })
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        self.call("read", |open, files, fate| {
            let file = files.get(&open.name).ok_or(Error::new("read", Kind::NotFound))?;
            let rest = file.get(open.at..).unwrap_or_default();
            let mut chunk = rest[..rest.len().min(CHUNK)].to_vec();
            open.at += chunk.len();
            // Another bit than when writing: one fault does not mend the other.
            if let (Fate::Altered, Some(byte)) = (fate, chunk.first_mut()) {
                *byte ^= 8;
            }
            Ok(chunk)
        })
    }

    fn rename(&mut self, from: &Name, to: &Name) -> Result<()> {
        self.call("rename", |_, files, fate| {
            if files.contains_key(to.as_str()) {
                return Err(Error::new("rename", Kind::Exists));
            }
            let file = files.get(from.as_str()).ok_or(Error::new("rename", Kind::NotFound))?.clone();
            if fate != Fate::Torn {
                files.insert(to.to_string(), file);
                files.remove(from.as_str());
            }
            Ok(())
        })
    }

    fn remove(&mut self, name: &Name) -> Result<()> {
        self.call("remove", |_, files, _| {
            files.remove(name.as_str()).map(drop).ok_or(Error::new("remove", Kind::NotFound))
        })
    }
}
