//! What lies in a group's folder: archives with their manifests, and what an upload left behind.
//!
//! Manifests are read, not understood: what is in them is the archive's matter. Nothing is decided by what a
//! server says of a file's age.

use std::collections::{BTreeMap, BTreeSet};

use crate::layout::{ArchiveId, Piece};
use crate::store::{Connection, Kind, Name, Result};

/// Largest manifest that is read; of a larger one only this much, which is none then.
pub const LARGEST_MANIFEST: usize = 1 << 20;

/// An archive, as far as it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Its bytes, if it is there at all.
    pub size: Option<u64>,
    /// Its manifest, as it lies there.
    pub manifest: Option<Vec<u8>>,
}

/// A group's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// By id: whole archives, archives without a manifest, manifests without an archive.
    pub archives: BTreeMap<ArchiveId, Found>,
    /// What is or was being written.
    pub parts: Vec<(Name, ArchiveId)>,
}

impl Survey {
    /// Lists the folder and reads its manifests.
    ///
    /// # Errors
    /// As the store. There is no survey of a part of the folder.
    pub fn take(connection: &mut dyn Connection) -> Result<Self> {
        let mut survey = Self::default();
        let mut manifests = Vec::new();
        for entry in connection.list()? {
            match Piece::of(&entry.name) {
                Some(Piece::Data(id)) => survey.archives.entry(id).or_default().size = Some(entry.size),
                Some(Piece::Manifest(id)) => manifests.push(id),
                Some(Piece::Part(id)) => survey.parts.push((entry.name, id)),
                None => {}
            }
        }
        for id in manifests {
            if let Some(manifest) = read(connection, &id.manifest())? {
                survey.archives.entry(id).or_default().manifest = Some(manifest);
            }
        }
        Ok(survey)
    }

    /// What an upload left behind that will not go on: parts, and archives whose manifest never came. `live` are
    /// jobs that may go on; what is younger than `grace` seconds by its own name stays as well.
    #[must_use]
    pub fn leftovers(&self, live: &BTreeSet<ArchiveId>, now: u64, grace: u64) -> Vec<Name> {
        let over = |id: &ArchiveId| !live.contains(id) && id.begun_at().saturating_add(grace) < now;
        let parts = self.parts.iter().filter(|(_, id)| over(id)).map(|(name, _)| name.clone());
        let orphans = self.archives.iter().filter(|(id, found)| found.manifest.is_none() && over(id));
        parts.chain(orphans.map(|(id, _)| id.data())).collect()
    }
}

/// A manifest, or `None` if it went since it was listed.
fn read(connection: &mut dyn Connection, name: &Name) -> Result<Option<Vec<u8>>> {
    match connection.open(name) {
        Ok(()) => {}
        Err(error) if error.kind == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut manifest = Vec::new();
    while manifest.len() <= LARGEST_MANIFEST {
        let chunk = connection.read()?;
        if chunk.is_empty() {
            break;
        }
        manifest.extend(chunk);
    }
    manifest.truncate(LARGEST_MANIFEST);
    Ok(Some(manifest))
}
