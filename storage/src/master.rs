//! The group's master database: items in the order of their last change, the history of accepted
//! changes, the ledger of operations, and the membership.
//!
//! Rules are decided in `mfpsync_replication`; here is what they read and write.

mod accept;
mod age;
pub mod archived;
mod browse;
mod group;
mod history;
mod ledger;
mod operator;
mod read;
mod replication;
mod restored;
mod sharing;
mod succession;
mod switching;
mod tombstones;

use std::ops::Deref;

use rusqlite::Connection;

use crate::open::FileKind;
use crate::schema;
use crate::store::Database;

pub use accept::{Author, ItemWrite, Loss, Prior};
pub use age::{Extent, Mark};
pub use browse::{HistoryFilter, HistoryLine, HistoryPage, HistoryPlace, LostEdit, before};
pub use group::{Founding, Progress, Reign};
pub use history::{Before, HistoryEntry};
pub use ledger::Ledger;
pub use operator::{OPERATOR, OperatorAct, Pruned};
pub use read::{ChangesRead, Head, MasterItem};
pub use replication::{Durability, Replication, Unprotected};
pub use restored::{Reapplied, Since};
pub use sharing::{KindCount, Setting};
pub use succession::{OfferedAgain, Succession};
pub use switching::{Portion, Switching};
pub use tombstones::Collected;

/// Marks stores of the master database.
#[derive(Debug)]
pub struct Master;

impl Database for Master {
    const KIND: FileKind = schema::MASTER;
    type Read<'c> = MasterRead<'c>;
    type Write<'c> = MasterWrite<'c>;

    fn read(connection: &Connection) -> MasterRead<'_> {
        MasterRead { connection }
    }

    fn write(connection: &Connection) -> MasterWrite<'_> {
        MasterWrite { read: MasterRead { connection } }
    }
}

/// One consistent state of the master database.
#[derive(Debug)]
pub struct MasterRead<'c> {
    connection: &'c Connection,
}

/// A transaction on the master database; reads see what it wrote.
#[derive(Debug)]
pub struct MasterWrite<'c> {
    read: MasterRead<'c>,
}

impl<'c> Deref for MasterWrite<'c> {
    type Target = MasterRead<'c>;

    fn deref(&self) -> &Self::Target {
        &self.read
    }
}

/// Bits of a position that number the items of one operation.
const ORDINAL_BITS: u32 = 12;

/// Sequences beyond this are never given; what peers name beyond it counts as this.
const LAST_SEQUENCE: u64 = (1 << (63 - ORDINAL_BITS)) - 1;

/// The rowid of an operation's `ordinal`th item. Operations hold at most 100 edits.
fn position(sequence: crate::model::Sequence, ordinal: usize) -> i64 {
    ((sequence.0.min(LAST_SEQUENCE) << ORDINAL_BITS) | ordinal as u64) as i64
}

fn sequence_of(position: i64) -> crate::model::Sequence {
    crate::model::Sequence((position as u64) >> ORDINAL_BITS)
}
