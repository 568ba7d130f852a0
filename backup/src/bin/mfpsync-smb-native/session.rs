//! What is asked for, done with the library's messages: a file is on the server's stable storage before it is
//! finished, and a rename refuses a name that is taken, both by the server itself.
//!
//! The library's own writer hands bytes over before the server has taken them, so that a break would leave a file of
//! which nobody knows how much of it is good. Files are opened and written by single messages here, each answered.
//! Links to other servers are not followed: the gate knows one. The library does not say that it can encrypt, and a
//! server may take it at its word.

use std::sync::Arc;

use mfpsync_backup::smb::Target;
use mfpsync_backup::smb::helper::{Backend, Failure, Gate, Result};
use mfpsync_backup::store::{CHUNK, Entry, Kind, MOST_ENTRIES, Name};
use smb2::client::{Connection, Session as LogIn};
use smb2::msg::create::{CreateDisposition, CreateRequest, CreateResponse, ImpersonationLevel, ShareAccess};
use smb2::msg::flush::FlushRequest;
use smb2::msg::write::{WriteRequest, WriteResponse};
use smb2::pack::{Pack, ReadCursor, Unpack};
use smb2::types::flags::FileAccessMask;
use smb2::types::status::NtStatus;
use smb2::types::{Command, CreditCharge, FileId, OplockLevel};
use smb2::{Error, FileAttributes, FileInfo, FileReader, Frame, Tree, encode_path};
use tokio::runtime::{Builder, Runtime};

use crate::failure::failure;

/// **Source**: \[MS-SMB2\] 2.2.13, `FILE_NON_DIRECTORY_FILE`.
const NO_FOLDER: u32 = 0x40;
/// Where the bytes of a WRITE begin, counted from its header.
///
/// **Source**: \[MS-SMB2\] 2.2.21.
const DATA: u16 = 0x70;
/// What one credit pays for.
///
/// **Source**: \[MS-SMB2\] 3.1.5.2.
const CREDIT: usize = 64 << 10;

/// The folder, with one file open at the most.
pub(crate) struct Session {
    /// The library works while it is waited for, and only then.
    runtime: Runtime,
    share: Share,
    open: Open,
    chunk: Vec<u8>,
}

/// What is open, and the place in it.
enum Open {
    Nothing,
    Reading(FileReader, u64),
    Writing(FileId, u64),
}

struct Share {
    connection: Connection,
    tree: Arc<Tree>,
    /// From the share's root.
    folder: String,
}

/// Connects, and makes the group's own folder if it is missing.
pub(crate) fn connect(target: &Target, gate: &Gate) -> Result<Session> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let share = runtime.block_on(Share::enter(target, gate))?;
    Ok(Session { runtime, share, open: Open::Nothing, chunk: Vec::new() })
}

impl Share {
    async fn enter(target: &Target, gate: &Gate) -> Result<Self> {
        let connection = log_in(target, gate).await?;
        let mut connection_too = connection.clone();
        let tree = Tree::connect(&mut connection_too, &target.share).await.map_err(failure)?;
        let mut share = Self { connection, tree: Arc::new(tree), folder: String::new() };
        let parts: Vec<&str> = target.folder.split('/').filter(|part| !part.is_empty()).collect();
        if !parts.is_empty() && !share.look(&parts.join("/")).await?.is_directory {
            return Err(Kind::WrongType.into());
        }
        share.folder = [&parts[..], &[target.own_folder.as_str()]].concat().join("/");
        let own = share.folder.clone();
        match share.look(&own).await {
            Ok(found) if found.is_directory => {}
            Ok(_file) => return Err(Kind::WrongType.into()),
            Err(Failure { kind: Kind::NotFound, .. }) => share.make(&own).await?,
            Err(refused) => return Err(refused),
        }
        Ok(share)
    }

    fn path(&self, name: &Name) -> String {
        format!("{}/{name}", self.folder)
    }

    async fn look(&mut self, path: &str) -> Result<FileInfo> {
        self.tree.stat(&mut self.connection, path).await.map_err(failure)
    }

    async fn make(&mut self, folder: &str) -> Result<()> {
        match self.tree.create_directory(&mut self.connection, folder).await.map_err(failure) {
            // Another device of the group was faster.
            Err(Failure { kind: Kind::Exists, .. }) => Ok(()),
            made => made,
        }
    }

    /// Sends a message, and takes the answer of one that went well.
    async fn ask(&self, command: Command, body: &dyn Pack, credits: u16) -> Result<Frame> {
        let (tree, charge) = (Some(self.tree.tree_id), CreditCharge(credits));
        let frame =
            self.connection.execute_with_credits(command, body, tree, charge).await.map_err(failure)?;
        match frame.header.status {
            NtStatus::SUCCESS => Ok(frame),
            status => Err(failure(Error::Protocol { status, command })),
        }
    }

    /// Opens a file for writing. Nobody else may meanwhile do anything with it.
    async fn open_to_write(&self, name: &Name, disposition: CreateDisposition) -> Result<FileId> {
        let path = encode_path(&self.path(name));
        let access = FileAccessMask::FILE_WRITE_DATA
            | FileAccessMask::FILE_WRITE_ATTRIBUTES
            | FileAccessMask::SYNCHRONIZE;
        let request = CreateRequest {
            requested_oplock_level: OplockLevel::None,
            impersonation_level: ImpersonationLevel::Impersonation,
            desired_access: FileAccessMask::new(access),
            file_attributes: FileAttributes::NORMAL,
            share_access: ShareAccess(0),
            create_disposition: disposition,
            create_options: NO_FOLDER,
            name: if self.tree.is_dfs {
                format!(r"{}\{}\{path}", self.connection.server_name(), self.tree.share_name)
            } else {
                path
            },
            create_contexts: Vec::new(),
        };
        let frame = self.ask(Command::Create, &request, 1).await?;
        let opened = CreateResponse::unpack(&mut ReadCursor::new(&frame.body)).map_err(failure)?;
        Ok(opened.file_id)
    }

    /// Writes, and returns when the server has all of it.
    async fn write(&self, file_id: FileId, mut offset: u64, bytes: &[u8]) -> Result<()> {
        let largest = self.connection.params().map_or(CREDIT, |agreed| agreed.max_write_size as usize);
        for part in bytes.chunks(largest.clamp(1, CHUNK)) {
            let request = WriteRequest {
                data_offset: DATA,
                offset,
                file_id,
                channel: 0,
                remaining_bytes: 0,
                write_channel_info_offset: 0,
                write_channel_info_length: 0,
                flags: 0,
                data: part.to_vec(),
            };
            let credits = u16::try_from(part.len().div_ceil(CREDIT)).unwrap_or(u16::MAX);
            let frame = self.ask(Command::Write, &request, credits).await?;
            let taken = WriteResponse::unpack(&mut ReadCursor::new(&frame.body)).map_err(failure)?.count;
            if taken as usize != part.len() {
                // It says that it went well, and that it did not.
                return Err(Kind::Other.into());
            }
            offset += u64::from(taken);
        }
        Ok(())
    }

    async fn finish(&mut self, file_id: FileId) -> Result<()> {
        let flushed = self.ask(Command::Flush, &FlushRequest { file_id }, 1).await;
        let closed = self.tree.close_handle(&mut self.connection, file_id).await.map_err(failure);
        flushed.and(closed)
    }

    async fn list(&self) -> Result<Vec<Entry>> {
        let connection = self.connection.clone();
        let mut reader = self.tree.open_directory_reader(connection, &self.folder).await.map_err(failure)?;
        let (mut count, mut files) = (0, Vec::new());
        while let Some(batch) = reader.next_batch().await.map_err(failure)? {
            count += batch.len();
            if count > MOST_ENTRIES {
                return Err(Kind::TooMany.into());
            }
            files.extend(
                batch
                    .into_iter()
                    .filter(|entry| !entry.is_directory)
                    .filter_map(|file| Some(Entry { name: Name::parse(&file.name).ok()?, size: file.size })),
            );
        }
        Ok(files)
    }
}

async fn log_in(target: &Target, gate: &Gate) -> Result<Connection> {
    let address = format!("127.0.0.1:{}", gate.port());
    let mut connection = Connection::connect(&address, target.patience).await.map_err(failure)?;
    // What is compressed cannot be looked at.
    connection.set_compression_requested(false);
    connection.set_response_timeout(Some(target.patience));
    connection.negotiate().await.map_err(failure)?;
    let password = target.password.reveal();
    // It signs from here on, and encrypts if the server demands that: the gate lets nothing else pass. Its copies of
    // the password last as long as the process, of which no memory is dumped.
    LogIn::setup(&mut connection, &target.user, password, &target.domain).await.map_err(failure)?;
    Ok(connection)
}

impl Session {
    /// Closes what is open, whatever it is: one file is at the most, and none while one is renamed or removed. How that
    /// went matters for a file that is finished, and for no other.
    fn close(&mut self) {
        let Self { runtime, share, open, .. } = self;
        let _closed = match std::mem::replace(open, Open::Nothing) {
            Open::Nothing => Ok(()),
            Open::Reading(reader, _) => runtime.block_on(reader.close()),
            Open::Writing(file, _) => runtime.block_on(share.tree.close_handle(&mut share.connection, file)),
        };
    }
}

impl Backend for Session {
    fn room(&mut self) -> Result<u64> {
        let Share { connection, tree, .. } = &mut self.share;
        Ok(self.runtime.block_on(tree.fs_info(connection)).map_err(failure)?.free_bytes)
    }

    fn list(&mut self) -> Result<Vec<Entry>> {
        self.runtime.block_on(self.share.list())
    }

    fn size(&mut self, name: &Name) -> Result<Option<u64>> {
        let path = self.share.path(name);
        match self.runtime.block_on(self.share.look(&path)) {
            Ok(found) if found.is_directory => Err(Kind::WrongType.into()),
            Ok(file) => Ok(Some(file.size)),
            Err(Failure { kind: Kind::NotFound, .. }) => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    fn create(&mut self, name: &Name) -> Result<()> {
        self.close();
        let file = self.runtime.block_on(self.share.open_to_write(name, CreateDisposition::FileCreate))?;
        self.open = Open::Writing(file, 0);
        Ok(())
    }

    fn resume(&mut self, name: &Name, offset: u64) -> Result<()> {
        self.close();
        let file = self.runtime.block_on(self.share.open_to_write(name, CreateDisposition::FileOpen))?;
        self.open = Open::Writing(file, offset);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Open::Writing(file, at) = &mut self.open else { return Err(Kind::Helper.into()) };
        self.runtime.block_on(self.share.write(*file, *at, bytes))?;
        *at += bytes.len() as u64;
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let Open::Writing(file, _) = self.open else { return Err(Kind::Helper.into()) };
        self.open = Open::Nothing;
        self.runtime.block_on(self.share.finish(file))
    }

    fn open(&mut self, name: &Name) -> Result<()> {
        self.close();
        let Share { connection, tree, .. } = &self.share;
        let path = self.share.path(name);
        let reader =
            self.runtime.block_on(tree.open_file_reader(connection.clone(), &path)).map_err(failure)?;
        if reader.info().is_directory {
            return Err(Kind::WrongType.into());
        }
        self.open = Open::Reading(reader, 0);
        Ok(())
    }

    fn read(&mut self) -> Result<&[u8]> {
        let Open::Reading(reader, at) = &mut self.open else { return Err(Kind::Helper.into()) };
        self.chunk = self.runtime.block_on(reader.read_at(*at, CHUNK as u64)).map_err(failure)?;
        *at += self.chunk.len() as u64;
        Ok(&self.chunk)
    }

    fn rename(&mut self, from: &Name, to: &Name) -> Result<()> {
        self.close();
        let (from, to) = (self.share.path(from), self.share.path(to));
        let Share { connection, tree, .. } = &mut self.share;
        self.runtime.block_on(tree.rename(connection, &from, &to)).map_err(failure)
    }

    fn remove(&mut self, name: &Name) -> Result<()> {
        self.close();
        let path = self.share.path(name);
        let Share { connection, tree, .. } = &mut self.share;
        self.runtime.block_on(tree.delete_file(connection, &path)).map_err(failure)
    }
}
