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

use mfpsync_backup::smb::helper::{Backend, Failure, Gate, Result};
use mfpsync_backup::smb::{Dialect, Encryption, Target};
use mfpsync_backup::store::{Breach, CHUNK, Entry, Kind, MOST_ENTRIES, Name};
use pavao::{
    SmbClient, SmbCredentials, SmbDialect, SmbDirentType, SmbEncryptionLevel, SmbError, SmbFile, SmbMode,
    SmbOpenOptions, SmbOptions,
};

/// The folder, with one file open at the most.
pub(crate) struct Session {
    client: &'static SmbClient,
    folder: String,
    open: Option<SmbFile<'static>>,
    chunk: Vec<u8>,
}

/// Connects, and makes the group's own folder if it is missing.
pub(crate) fn connect(target: &Target, gate: &Gate) -> Result<Session> {
    // Of this device's folder, and not of the share.
    configure(target).map_err(|refused| match refused.kind {
        Kind::Full => Kind::NoRoomHere.into(),
        _ => refused,
    })?;
    let client = SmbClient::new(credentials(target, gate), options(target)).map_err(failure)?;
    client.set_timeout(target.patience).map_err(failure)?;
    let folder = enter(&client, target)?;
    // An open file is lent by the client, and both last as long as the process.
    let client = Box::leak(Box::new(client));
    Ok(Session { client, folder, open: None, chunk: Vec::new() })
}

/// The library's errors in our words.
fn failure(error: SmbError) -> Failure {
    match error {
        SmbError::Io(error) => error.into(),
        SmbError::NulInPath(_) => Kind::InvalidName.into(),
        SmbError::InvalidProtocolRange { .. } | SmbError::ProtocolConfiguration => {
            Kind::Policy(Breach::Dialect).into()
        }
        SmbError::BadFileDescriptor
        | SmbError::BadValue
        | SmbError::ProtocolConfigurationConflict
        | SmbError::Mutex => Kind::Other.into(),
    }
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
    if let Err(refused) = client.stat("/").map_err(failure) {
        return Err(if refused.kind == Kind::NotFound { Kind::NoSuchShare.into() } else { refused });
    }
    let mut folder = String::new();
    for part in target.folder.split('/').filter(|part| !part.is_empty()) {
        folder = format!("{folder}/{}", encoded(part));
    }
    if !folder.is_empty() && !client.stat(&folder).map_err(failure)?.mode.is_dir() {
        return Err(Kind::WrongType.into());
    }
    let own = format!("{folder}/{}", target.own_folder);
    match client.stat(&own).map_err(failure) {
        Ok(found) if found.mode.is_dir() => {}
        Ok(_file) => return Err(Kind::WrongType.into()),
        Err(Failure { kind: Kind::NotFound, .. }) => make(client, &own)?,
        Err(refused) => return Err(refused),
    }
    Ok(own)
}

fn make(client: &SmbClient, folder: &str) -> Result<()> {
    match client.mkdir(folder, SmbMode::from(0o700)).map_err(failure) {
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

impl Session {
    fn path(&self, name: &Name) -> String {
        format!("{}/{name}", self.folder)
    }

    /// A file that is there, and a file.
    fn expect(&mut self, name: &Name) -> Result<u64> {
        self.size(name)?.ok_or(Kind::NotFound.into())
    }

    fn open_with(&self, name: &Name, options: SmbOpenOptions) -> Result<SmbFile<'static>> {
        self.client.open_with(self.path(name), options).map_err(failure)
    }

    fn opened(&mut self) -> Result<&mut SmbFile<'static>> {
        self.open.as_mut().ok_or(Kind::Helper.into())
    }
}

impl Backend for Session {
    /// The library counts free allocation units, and gives their size as bytes in a sector times sectors in a unit.
    fn room(&mut self) -> Result<u64> {
        let free = self.client.statvfs(&self.folder).map_err(failure)?;
        Ok(free.bavail.saturating_mul(free.bsize).saturating_mul(free.frsize))
    }

    fn list(&mut self) -> Result<Vec<Entry>> {
        // The library says of a listing only that it failed.
        if !self.client.stat(&self.folder).map_err(failure)?.mode.is_dir() {
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

    fn size(&mut self, name: &Name) -> Result<Option<u64>> {
        match self.client.stat(self.path(name)).map_err(failure) {
            Ok(found) if found.mode.is_file() => Ok(Some(found.size)),
            Ok(_folder) => Err(Kind::WrongType.into()),
            Err(Failure { kind: Kind::NotFound, .. }) => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    fn create(&mut self, name: &Name) -> Result<()> {
        let options = SmbOpenOptions::default().write(true).create(true).exclusive(true).mode(0o600);
        self.open = Some(self.open_with(name, options)?);
        Ok(())
    }

    fn resume(&mut self, name: &Name, offset: u64) -> Result<()> {
        self.expect(name)?;
        let mut file = self.open_with(name, SmbOpenOptions::default().write(true))?;
        file.seek(SeekFrom::Start(offset))?;
        self.open = Some(file);
        Ok(())
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
        self.open = Some(self.open_with(name, SmbOpenOptions::default().read(true))?);
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
        match self.size(to) {
            Ok(None) => self.client.rename(self.path(from), self.path(to)).map_err(failure),
            Ok(Some(_)) | Err(Failure { kind: Kind::WrongType, .. }) => Err(Kind::Exists.into()),
            Err(refused) => Err(refused),
        }
    }

    fn remove(&mut self, name: &Name) -> Result<()> {
        // A file that could not be written to its end is removed while it is open.
        self.open = None;
        self.expect(name)?;
        self.client.unlink(self.path(name)).map_err(failure)
    }
}
