//! Archives in a directory of this machine: a mounted share, a USB medium.
//!
//! The folder must exist: a medium that is not plugged in must not be mistaken for an empty one.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with, statvfs};

use super::{
    ArchiveStore, CHUNK, Cancel, Connection, Entry, Error, Kind, MOST_ENTRIES, Name, Protection, Result,
};

/// A directory for archives.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: PathBuf,
    folder: Name,
}

impl LocalStore {
    /// The directory `folder` in `root`; it is made when first connected to, `root` is not.
    #[must_use]
    pub fn new(root: &Path, folder: Name) -> Self {
        Self { root: root.to_owned(), folder }
    }
}

impl ArchiveStore for LocalStore {
    fn connect(&self, cancel: &Cancel) -> Result<Box<dyn Connection>> {
        let folder = self.root.join(self.folder.as_str());
        match fs::create_dir(&folder) {
            Ok(()) => sync(&self.root)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::local("make folder", &error)),
        }
        if !fs::symlink_metadata(&folder).map_err(|error| Error::local("open folder", &error))?.is_dir() {
            return Err(Error::new("open folder", Kind::WrongType));
        }
        Ok(Box::new(Folder { path: folder, open: None, cancel: cancel.clone() }))
    }
}

struct Folder {
    path: PathBuf,
    open: Option<File>,
    cancel: Cancel,
}

impl Folder {
    fn path_of(&self, name: &Name) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// Whoever else writes to the medium may have put a link or a pipe there: neither is followed or waited for.
    fn begin(&mut self, doing: &'static str, name: &Name, options: &mut OpenOptions) -> Result<&mut File> {
        self.cancel.check(doing)?;
        let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
        let file = options
            .custom_flags(flags)
            .open(self.path_of(name))
            .map_err(|error| Error::local(doing, &error))?;
        if !file.metadata().map_err(|error| Error::local(doing, &error))?.is_file() {
            return Err(Error::new(doing, Kind::WrongType));
        }
        Ok(self.open.insert(file))
    }

    fn opened(&mut self, doing: &'static str) -> Result<&mut File> {
        self.cancel.check(doing)?;
        self.open.as_mut().ok_or(Error::new(doing, Kind::Helper))
    }
}

impl Connection for Folder {
    fn protection(&self) -> Protection {
        Protection::Local
    }

    fn room(&mut self) -> Result<u64> {
        let free = statvfs(&self.path).map_err(|error| Error::local("ask for room", &error.into()))?;
        Ok(free.f_bavail.saturating_mul(free.f_frsize))
    }

    fn list(&mut self) -> Result<Vec<Entry>> {
        self.cancel.check("list folder")?;
        let failed = |error| Error::local("list folder", &error);
        let mut entries = Vec::new();
        for (count, entry) in fs::read_dir(&self.path).map_err(failed)?.enumerate() {
            if count >= MOST_ENTRIES {
                return Err(Error::new("list folder", Kind::TooMany));
            }
            let entry = entry.map_err(failed)?;
            let Some(name) = entry.file_name().to_str().and_then(|name| Name::parse(name).ok()) else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => entries.push(Entry { name, size: metadata.len() }),
                Ok(_no_file) => {}
                // Removed since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(entries)
    }

    fn size(&mut self, name: &Name) -> Result<Option<u64>> {
        self.cancel.check("look at file")?;
        match fs::symlink_metadata(self.path_of(name)) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
            Ok(_no_file) => Err(Error::new("look at file", Kind::WrongType)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::local("look at file", &error)),
        }
    }

    fn create(&mut self, name: &Name) -> Result<()> {
        self.begin("create file", name, OpenOptions::new().write(true).create_new(true).mode(0o600))?;
        Ok(())
    }

    fn resume(&mut self, name: &Name, offset: u64) -> Result<()> {
        let file = self.begin("open file to write on", name, OpenOptions::new().write(true))?;
        let at = file.seek(SeekFrom::Start(offset));
        at.map(drop).map_err(|error| Error::local("open file to write on", &error))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.opened("write file")?.write_all(bytes).map_err(|error| Error::local("write file", &error))
    }

    fn finish(&mut self) -> Result<()> {
        self.opened("finish file")?.sync_all().map_err(|error| Error::local("finish file", &error))?;
        self.open = None;
        Ok(())
    }

    fn open(&mut self, name: &Name) -> Result<()> {
        self.begin("open file", name, OpenOptions::new().read(true))?;
        Ok(())
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut part = self.opened("read file")?.take(CHUNK as u64);
        part.read_to_end(&mut bytes).map_err(|error| Error::local("read file", &error))?;
        Ok(bytes)
    }

    fn rename(&mut self, from: &Name, to: &Name) -> Result<()> {
        self.cancel.check("rename file")?;
        let (from, to) = (self.path_of(from), self.path_of(to));
        match renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            // Mounted shares and sticks know no such rename. Names carry luck: nobody takes one in between.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
                if fs::symlink_metadata(&to).is_ok() {
                    return Err(Error::new("rename file", Kind::Exists));
                }
                fs::rename(&from, &to).map_err(|error| Error::local("rename file", &error))?;
            }
            Err(error) => return Err(Error::local("rename file", &error.into())),
        }
        sync(&self.path)
    }

    fn remove(&mut self, name: &Name) -> Result<()> {
        self.cancel.check("remove file")?;
        fs::remove_file(self.path_of(name)).map_err(|error| Error::local("remove file", &error))?;
        sync(&self.path)
    }
}

/// Has a directory's names on stable storage.
fn sync(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    match synced {
        Ok(()) => Ok(()),
        // Some mounted shares know no such thing; what they promise of names they promise without it.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        Err(error) => Err(Error::local("sync folder", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("name")
    }

    fn kind<T>(result: Result<T>) -> Option<Kind> {
        result.err().map(|error| error.kind)
    }

    fn written(folder: &mut dyn Connection, file: &str, bytes: &[u8]) {
        folder.create(&name(file)).expect("create");
        folder.write(bytes).expect("write");
        folder.finish().expect("finish");
    }

    #[test]
    fn a_medium_that_is_not_there_is_not_taken_for_an_empty_one() {
        let home = tempfile::tempdir().expect("directory");
        let cancel = Cancel::new().expect("switch");
        let missing = LocalStore::new(&home.path().join("stick"), name("group"));
        assert_eq!(kind(missing.connect(&cancel)), Some(Kind::NotFound));
        fs::write(home.path().join("file"), "").expect("file");
        let file = LocalStore::new(home.path(), name("file"));
        assert_eq!(kind(file.connect(&cancel)), Some(Kind::WrongType));
    }

    #[test]
    fn files_are_written_on_and_nothing_is_replaced() {
        let home = tempfile::tempdir().expect("directory");
        let store = LocalStore::new(home.path(), name("group"));
        let folder = &mut *store.connect(&Cancel::new().expect("switch")).expect("connection");
        written(folder, "a", b"first");
        written(folder, "b", b"second");
        folder.resume(&name("a"), 3).expect("resume");
        folder.write(b"e in line").expect("write");
        folder.finish().expect("finish");
        folder.open(&name("a")).expect("open");
        assert_eq!(folder.read().expect("read"), b"fire in line");
        assert_eq!(folder.read().expect("read"), b"");
        assert_eq!(kind(folder.rename(&name("a"), &name("b"))), Some(Kind::Exists));
        assert_eq!(kind(folder.create(&name("b"))), Some(Kind::Exists));
        assert_eq!(folder.size(&name("b")), Ok(Some(6)));
        folder.rename(&name("a"), &name("c")).expect("rename");
        folder.remove(&name("b")).expect("remove");
        assert_eq!(kind(folder.remove(&name("b"))), Some(Kind::NotFound));
        assert_eq!(folder.list(), Ok(vec![Entry { name: name("c"), size: 12 }]));
    }

    #[test]
    fn neither_folders_nor_links_nor_names_of_others_are_files() {
        let home = tempfile::tempdir().expect("directory");
        let store = LocalStore::new(home.path(), name("group"));
        let folder = &mut *store.connect(&Cancel::new().expect("switch")).expect("connection");
        let path = home.path().join("group");
        fs::create_dir(path.join("folder")).expect("folder");
        fs::write(path.join("name of others"), "").expect("file");
        std::os::unix::fs::symlink("/etc/passwd", path.join("link")).expect("link");
        assert_eq!(folder.list(), Ok(vec![]));
        for file in ["folder", "link"] {
            assert_eq!(kind(folder.size(&name(file))), Some(Kind::WrongType));
            assert!(folder.open(&name(file)).is_err());
            assert!(folder.resume(&name(file), 0).is_err());
        }
        assert!(folder.remove(&name("folder")).is_err());
    }

    #[test]
    fn a_job_told_to_end_does_nothing_more() {
        let home = tempfile::tempdir().expect("directory");
        let store = LocalStore::new(home.path(), name("group"));
        let cancel = Cancel::new().expect("switch");
        let folder = &mut *store.connect(&cancel).expect("connection");
        folder.create(&name("a")).expect("create");
        cancel.cancel();
        assert_eq!(kind(folder.write(b"a")), Some(Kind::Cancelled));
        assert_eq!(kind(folder.remove(&name("a"))), Some(Kind::Cancelled));
        assert_eq!(fs::read_dir(home.path().join("group")).expect("folder").count(), 1);
    }
}
