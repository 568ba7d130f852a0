//! What is asked for, done with libsmbclient, with what the library gets wrong put right.
//!
//! Its rename replaces and its unlink removes folders: both look first. Names in its addresses are encoded
//! here, because it decodes them. It cannot sync a file, and hides an error of closing one: who writes has to
//! read back.

use std::env;
use std::fs::{self, DirBuilder};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use mfpsync_backup::smb::protocol::{Answer, Request};
use mfpsync_backup::smb::{Dialect, Encryption, Target};
use mfpsync_backup::store::{CHUNK, Entry, Kind, MOST_ENTRIES, Name, Protection};
use pavao::{
    SmbClient, SmbCredentials, SmbDialect, SmbDirentType, SmbEncryptionLevel, SmbFile, SmbMode,
    SmbOpenOptions, SmbOptions,
};

use crate::failure::Failure;
use crate::gate::Gate;

type Result<T> = std::result::Result<T, Failure>;

/// A connection that passed every demand, and the folder it leads to.
pub(crate) struct Begun {
    folder: String,
    protection: Protection,
}

impl Begun {
    pub(crate) fn answer(&self) -> Answer<'static> {
        Answer::Begun(self.protection)
    }
}

/// Connects, and makes the group's own folder if it is missing.
pub(crate) fn connect(target: Target) -> Result<(SmbClient, Gate, Begun)> {
    target.check().map_err(|error| error.kind)?;
    configure(&target)?;
    let gate = Gate::open(&target)?;
    let client = SmbClient::new(credentials(&target, &gate), options(&target))?;
    client.set_timeout(target.patience)?;
    let folder = enter(&client, &target).map_err(|failure| explained(failure, &gate))?;
    // Without an agreement on a dialect nothing above could have been answered.
    let protection = gate.protection().ok_or(Kind::Other)?;
    Ok((client, gate, Begun { folder, protection }))
}

/// The gate knows better than the library why a connection ended.
fn explained(failure: Failure, gate: &Gate) -> Failure {
    gate.refusal().map_or(failure, Failure::from)
}

/// Writes the library's configuration where it looks first, so that this machine's own one is not read.
///
/// `HOME` is an empty folder of the daemon's making.
fn configure(target: &Target) -> Result<()> {
    let home =
        env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute()).ok_or(Kind::Helper)?;
    let (minimum, _) = dialect(target.minimum);
    let encryption = match target.encryption {
        Encryption::Required => "required",
        Encryption::Preferred => "desired",
        Encryption::Off => "if_required",
    };
    let state = home.display();
    let text = format!(
        "[global]\n\
         client min protocol = {minimum}\n\
         client max protocol = SMB3_11\n\
         client signing = required\n\
         client ipc signing = required\n\
         client smb encrypt = {encryption}\n\
         client NTLMv2 auth = yes\n\
         netbios name = MFPSYNC\n\
         disable netbios = yes\n\
         name resolve order = host\n\
         log level = 0\n\
         log file = /dev/null\n\
         lock directory = {state}\n\
         state directory = {state}\n\
         cache directory = {state}\n\
         private dir = {state}\n"
    );
    let folder = home.join(".smb");
    DirBuilder::new().mode(0o700).create(&folder)?;
    fs::write(folder.join("smb.conf"), text)?;
    Ok(())
}

fn credentials(target: &Target, gate: &Gate) -> SmbCredentials {
    SmbCredentials::default()
        .server(format!("smb://127.0.0.1:{}", gate.port()))
        .share(encoded(&target.share))
        .workgroup(&target.domain)
        .username(&target.user)
        .password(target.password.reveal())
}

fn options(target: &Target) -> SmbOptions {
    SmbOptions::default()
        .case_sensitive(true)
        .one_share_per_server(true)
        .no_auto_anonymous_login(true)
        .min_protocol(dialect(target.minimum).1)
        .max_protocol(SmbDialect::Smb311)
        .encryption_level(match target.encryption {
            Encryption::Required => SmbEncryptionLevel::Require,
            Encryption::Preferred => SmbEncryptionLevel::Request,
            Encryption::Off => SmbEncryptionLevel::None,
        })
}

fn dialect(dialect: Dialect) -> (&'static str, SmbDialect) {
    match dialect {
        Dialect::Smb300 => ("SMB3_00", SmbDialect::Smb300),
        Dialect::Smb302 => ("SMB3_02", SmbDialect::Smb302),
        Dialect::Smb311 => ("SMB3_11", SmbDialect::Smb311),
    }
}

/// Asks for the share first, then for the folder in it: the library has one answer for what is missing.
fn enter(client: &SmbClient, target: &Target) -> Result<String> {
    if let Err(failure) = client.stat("/").map_err(Failure::from) {
        return Err(if failure.kind == Kind::NotFound { Kind::NoSuchShare.into() } else { failure });
    }
    let mut folder = String::new();
    for part in target.folder.split('/').filter(|part| !part.is_empty()) {
        folder = format!("{folder}/{}", encoded(part));
    }
    if !folder.is_empty() && !client.stat(&folder)?.mode.is_dir() {
        return Err(Kind::WrongType.into());
    }
    let own = format!("{folder}/{}", target.own_folder);
    match client.stat(&own).map_err(Failure::from) {
        Ok(found) if found.mode.is_dir() => {}
        Ok(_file) => return Err(Kind::WrongType.into()),
        Err(Failure { kind: Kind::NotFound, .. }) => make(client, &own)?,
        Err(failure) => return Err(failure),
    }
    Ok(own)
}

fn make(client: &SmbClient, folder: &str) -> Result<()> {
    match client.mkdir(folder, SmbMode::from(0o700)).map_err(Failure::from) {
        // Another device of the group was faster.
        Err(Failure { kind: Kind::Exists, .. }) => Ok(()),
        made => made,
    }
}

/// A name as a part of the library's addresses.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The folder, with one file open at the most.
pub(crate) struct Session<'c> {
    client: &'c SmbClient,
    gate: &'c Gate,
    folder: String,
    open: Option<SmbFile<'c>>,
    chunk: Vec<u8>,
}

impl<'c> Session<'c> {
    pub(crate) fn new(client: &'c SmbClient, gate: &'c Gate, begun: Begun) -> Self {
        Self { client, gate, folder: begun.folder, open: None, chunk: Vec::new() }
    }

    /// Does what is asked.
    pub(crate) fn answer(&mut self, request: Request<'_>) -> Result<Answer<'_>> {
        let gate = self.gate;
        let done = match request {
            Request::Begin(_) => Err(Kind::Helper.into()),
            Request::Room => self.room().map(Answer::Room),
            Request::List => self.list().map(Answer::Entries),
            Request::Size(name) => self.size(&name).map(Answer::Size),
            Request::Create(name) => self.create(&name).map(|()| Answer::Done),
            Request::Resume(name, offset) => self.resume(&name, offset).map(|()| Answer::Done),
            Request::Write(bytes) => self.write(bytes).map(|()| Answer::Done),
            Request::Finish => self.finish().map(|()| Answer::Done),
            Request::Open(name) => self.open(&name).map(|()| Answer::Done),
            Request::Read => self.read().map(Answer::Bytes),
            Request::Rename(from, to) => self.rename(&from, &to).map(|()| Answer::Done),
            Request::Remove(name) => self.remove(&name).map(|()| Answer::Done),
        };
        done.map_err(|failure| explained(failure, gate))
    }

    fn path(&self, name: &Name) -> String {
        format!("{}/{name}", self.folder)
    }

    /// The library counts free allocation units, and gives their size as bytes in a sector times sectors in a unit.
    fn room(&self) -> Result<u64> {
        let free = self.client.statvfs(&self.folder)?;
        Ok(free.bavail.saturating_mul(free.bsize).saturating_mul(free.frsize))
    }

    fn list(&self) -> Result<Vec<Entry>> {
        // The library says of a listing only that it failed.
        if !self.client.stat(&self.folder)?.mode.is_dir() {
            return Err(Kind::WrongType.into());
        }
        let found = self.client.list_dirplus(&self.folder).map_err(|_| Kind::Lost)?;
        if found.len() > MOST_ENTRIES {
            return Err(Kind::TooMany.into());
        }
        let files = found.iter().filter(|entry| entry.get_type() == SmbDirentType::File);
        Ok(files
            .filter_map(|file| Some(Entry { name: Name::parse(file.name()).ok()?, size: file.size }))
            .collect())
    }

    fn size(&self, name: &Name) -> Result<Option<u64>> {
        match self.client.stat(self.path(name)).map_err(Failure::from) {
            Ok(found) if found.mode.is_file() => Ok(Some(found.size)),
            Ok(_folder) => Err(Kind::WrongType.into()),
            Err(Failure { kind: Kind::NotFound, .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// A file that is there, and a file.
    fn expect(&self, name: &Name) -> Result<u64> {
        self.size(name)?.ok_or(Kind::NotFound.into())
    }

    fn create(&mut self, name: &Name) -> Result<()> {
        let options = SmbOpenOptions::default().write(true).create(true).exclusive(true).mode(0o600);
        self.open = Some(self.client.open_with(self.path(name), options)?);
        Ok(())
    }

    fn resume(&mut self, name: &Name, offset: u64) -> Result<()> {
        self.expect(name)?;
        let mut file = self.client.open_with(self.path(name), SmbOpenOptions::default().write(true))?;
        file.seek(SeekFrom::Start(offset))?;
        self.open = Some(file);
        Ok(())
    }

    fn opened(&mut self) -> Result<&mut SmbFile<'c>> {
        self.open.as_mut().ok_or(Kind::Helper.into())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.opened()?.write_all(bytes)?)
    }

    fn finish(&mut self) -> Result<()> {
        self.opened()?;
        self.open = None;
        Ok(())
    }

    fn open(&mut self, name: &Name) -> Result<()> {
        self.expect(name)?;
        self.open = Some(self.client.open_with(self.path(name), SmbOpenOptions::default().read(true))?);
        Ok(())
    }

    fn read(&mut self) -> Result<&[u8]> {
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.clear();
        self.opened()?.take(CHUNK as u64).read_to_end(&mut chunk)?;
        self.chunk = chunk;
        Ok(&self.chunk)
    }

    fn rename(&mut self, from: &Name, to: &Name) -> Result<()> {
        // A file is not renamed while it is open for reading, by whomever.
        self.open = None;
        self.expect(from)?;
        if self.size(to)?.is_some() {
            return Err(Kind::Exists.into());
        }
        Ok(self.client.rename(self.path(from), self.path(to))?)
    }

    fn remove(&mut self, name: &Name) -> Result<()> {
        // A file that could not be written to its end is removed while it is open.
        self.open = None;
        self.expect(name)?;
        Ok(self.client.unlink(self.path(name))?)
    }
}
