//! `mfpsync demo --procedure`: what operators do with whole machines, each told as a story of its own.
//!
//! `office` is the group it happens to; one file for each way in which a machine goes and another one comes.

use clap::ValueEnum;

use super::fleet::{COPIER, FAX, Fleet, NEWCOMER, PRINTER, SCANNER};
use super::narrator::Narrator;
use super::{Ending, steps};
use crate::exit::Failure;
use office::Office;

mod archive;
mod office;
mod recovery;
mod replacement;
mod takeover;
mod transfer;

/// The procedures, under the names of the reference manual's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Procedure {
    /// The server changes places with one of its clients
    #[value(name = "P1")]
    ServerSwapped,
    /// A machine from outside takes the server's place
    #[value(name = "P2")]
    ServerReplaced,
    /// The server is lost, and its replica takes over
    #[value(name = "P3")]
    ReplicaTakesOver,
    /// The server is lost, and rebuilt on another machine from the replica's copy
    #[value(name = "P4")]
    ServerRebuilt,
    /// A client leaves, another one breaks down, and a new one comes
    #[value(name = "P5")]
    ClientReplaced,
    /// The server is lost with its disk, and comes back from an archive on a file server
    #[value(name = "backup")]
    Restored,
}

/// Tells one procedure to its end; with `keep` the daemons run on.
///
/// # Errors
/// The step that failed.
pub(super) async fn tell(
    narrator: &Narrator,
    fleet: &mut Fleet,
    procedure: Procedure,
    keep: bool,
) -> Result<Ending, Failure> {
    let clients: &[usize] = match procedure {
        Procedure::ServerSwapped | Procedure::ServerReplaced | Procedure::Restored => &[PRINTER, SCANNER],
        Procedure::ReplicaTakesOver | Procedure::ServerRebuilt | Procedure::ClientReplaced => {
            &[PRINTER, SCANNER, FAX]
        }
    };
    let mut office = Office::open(narrator, fleet, clients).await?;
    let ending = match procedure {
        Procedure::ServerSwapped => {
            transfer::to_a_client(&mut office).await?;
            Ending { server: PRINTER, client: SCANNER }
        }
        Procedure::ServerReplaced => {
            transfer::to_a_newcomer(&mut office).await?;
            Ending { server: NEWCOMER, client: SCANNER }
        }
        Procedure::ReplicaTakesOver => {
            takeover::tell(&mut office).await?;
            Ending { server: PRINTER, client: SCANNER }
        }
        Procedure::ServerRebuilt => {
            recovery::tell(&mut office).await?;
            Ending { server: NEWCOMER, client: SCANNER }
        }
        Procedure::ClientReplaced => {
            replacement::tell(&mut office).await?;
            Ending { server: COPIER, client: PRINTER }
        }
        Procedure::Restored => {
            archive::tell(&mut office).await?;
            Ending { server: NEWCOMER, client: SCANNER }
        }
    };
    if !keep {
        steps::end(narrator, fleet).await?;
    }
    Ok(ending)
}
