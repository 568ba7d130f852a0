//! An archive of plain bytes, and what is to hold of those on a share.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mfpsync_backup::layout::{ArchiveId, Piece};
use mfpsync_backup::store::{ArchiveStore, Cancel, Name};
use mfpsync_backup::upload::{Archive, Patience, Progress, Proven, Source, Upload, Whole};
use ring::digest::{SHA256, digest};

/// Soon tried again, and often.
pub(crate) const PATIENCE: Patience =
    Patience { failures: 8, first: Duration::from_millis(20), longest: Duration::from_millis(200) };

/// Bytes that are easily told from others.
pub(crate) struct Bytes {
    pub(crate) bytes: Vec<u8>,
    /// Whether their number is said beforehand.
    pub(crate) told: bool,
}

impl Bytes {
    pub(crate) fn new(size: usize) -> Self {
        let mut bytes = (0..=250).collect::<Vec<u8>>().repeat(size / 251 + 1);
        bytes.truncate(size);
        Self { bytes, told: false }
    }
}

impl Source for Bytes {
    fn size(&self) -> Option<u64> {
        self.told.then_some(self.bytes.len() as u64)
    }

    fn repeats(&self) -> bool {
        true
    }

    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.bytes.get(offset as usize..).ok_or(io::ErrorKind::UnexpectedEof)?))
    }
}

impl Proven for Bytes {
    fn prove(&mut self, _read_back: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

impl Archive for Bytes {
    fn manifest(&mut self, whole: &Whole) -> io::Result<Vec<u8>> {
        Ok(whole.sha256.to_vec())
    }
}

pub(crate) fn id(luck: u64) -> ArchiveId {
    ArchiveId::new(1_796_000_000, luck)
}

/// Uploads one.
pub(crate) fn upload(
    store: &dyn ArchiveStore,
    id: ArchiveId,
    archive: &mut Bytes,
) -> mfpsync_backup::store::Result<Whole> {
    upload_with(store, id, archive, &Cancel::new()?, &mut |_| ())
}

/// Uploads one, observed.
pub(crate) fn upload_with(
    store: &dyn ArchiveStore,
    id: ArchiveId,
    archive: &mut Bytes,
    cancel: &Cancel,
    observe: &mut dyn FnMut(Progress),
) -> mfpsync_backup::store::Result<Whole> {
    Upload { store, cancel, id, patience: PATIENCE, resume: None, observe }.run(archive)
}

/// The ids of all archives of a folder that exist; each must be what its manifest says.
///
/// # Errors
/// One is not.
pub(crate) fn sound(folder: &Path) -> Result<Vec<ArchiveId>> {
    let mut sound = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().ok().context("no text")?;
        if let Some(Piece::Manifest(id)) = Piece::of(&Name::parse(&name)?) {
            let manifest = folder.join(&name);
            let read =
                fs::read(&manifest).and_then(|told| Ok((told, fs::read(folder.join(id.data().as_str()))?)));
            let (manifest, data) = match read {
                // A server still at a removal whose client is gone: the manifest goes first.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !manifest.exists() => continue,
                read => read.with_context(|| format!("read {id}"))?,
            };
            ensure!(digest(&SHA256, &data).as_ref() == manifest, "{id} is not what its manifest says");
            sound.push(id);
        }
    }
    sound.sort();
    Ok(sound)
}
