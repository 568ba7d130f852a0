//! A device's own database: what readers at this device see, in every role.
//!
//! Each item has a mirror state (as last agreed with the server) and, where it differs, a local one.
//! Edits wait in the outbox until the server has an outcome for them, and are retained after that
//! until a second holder has them.

mod edit;
mod erase;
mod group;
mod join;
mod mirror;
mod notices;
mod outbox;
mod place;
mod read;
mod reoffer;
mod set_aside;
mod unsent;
mod usage;

use std::ops::Deref;

use rusqlite::Connection;

use crate::open::FileKind;
use crate::schema;
use crate::store::Database;

pub use edit::{EditContext, Edited, LocalEdit, OutboxLimits};
pub use group::{DeviceState, Membership};
pub use join::{JoinEdit, Mirrored, Phase};
pub use notices::notice_id;
pub use outbox::{RetainedLimits, Settlement, Waiting};
pub use read::{ItemState, LocalItem};
pub use reoffer::{Heard, Offered};
pub use set_aside::SetAside;
pub use unsent::Unsent;
pub use usage::Usage;

/// Marks stores of a device's own database.
#[derive(Debug)]
pub struct Local;

impl Database for Local {
    const KIND: FileKind = schema::LOCAL;
    type Read<'c> = LocalRead<'c>;
    type Write<'c> = LocalWrite<'c>;

    fn read(connection: &Connection) -> LocalRead<'_> {
        LocalRead { connection }
    }

    fn write(connection: &Connection) -> LocalWrite<'_> {
        LocalWrite { read: LocalRead { connection } }
    }
}

/// One consistent state of a device's database.
#[derive(Debug)]
pub struct LocalRead<'c> {
    connection: &'c Connection,
}

/// A transaction on a device's database; reads see what it wrote.
#[derive(Debug)]
pub struct LocalWrite<'c> {
    read: LocalRead<'c>,
}

impl<'c> Deref for LocalWrite<'c> {
    type Target = LocalRead<'c>;

    fn deref(&self) -> &Self::Target {
        &self.read
    }
}
