//! Removing archives that [`crate::retention`] let go, and what uploads left behind.
//!
//! The manifest goes first: with it the archive has ended to exist, all at once. What is gone already is done, so
//! that whatever cuts this off is made good by the next run.

use crate::layout::ArchiveId;
use crate::store::{Connection, Kind, Name, Result};

/// Removes archives, in their order; `removed` is told of each that exists no longer.
///
/// # Errors
/// As the store; those not told of are as they were, or without their manifest.
pub fn remove(
    connection: &mut dyn Connection,
    going: &[ArchiveId],
    removed: &mut dyn FnMut(ArchiveId),
) -> Result<()> {
    going.iter().try_for_each(|&id| {
        gone(connection, &id.manifest())?;
        removed(id);
        gone(connection, &id.data())
    })
}

/// Removes leftovers.
///
/// # Errors
/// As the store.
pub fn sweep(connection: &mut dyn Connection, leftovers: &[Name]) -> Result<()> {
    leftovers.iter().try_for_each(|name| gone(connection, name))
}

fn gone(connection: &mut dyn Connection, name: &Name) -> Result<()> {
    match connection.remove(name) {
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        removed => removed,
    }
}
