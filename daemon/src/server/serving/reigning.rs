//! Whether this server may speak as one: it stands down, hears of other reigns, and stays or ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mfpsync_proto::sync::{self as wire, Reason};
use mfpsync_replication::accept::lineage;
use mfpsync_replication::lineage::Lineage;
use mfpsync_replication::message::Claim;
use mfpsync_replication::wire::claim_to_wire;
use mfpsync_storage::codec::DecodeError;
use mfpsync_storage::master::{self, Head, MasterRead, MasterWrite};
use mfpsync_storage::model::{Epoch, Member, Parent, Promotion, PromotionReason, Signed};
use mfpsync_storage::physical::Position;
use mfpsync_storage::{Error, Priority};
use tonic::{Code, Status};

use super::Serving;
use crate::clock::unix_millis;
use crate::communication::{Code as EventCode, Event};
use crate::db::READ_DEADLINE;
use crate::fault::{Fault, FaultCode};
use crate::refusal;
use crate::server::gate::Held;

/// How long the replica may take to get what is left when this server stands down.
const DRAINS: Duration = Duration::from_secs(5);

impl Serving {
    /// Whether this server may speak as one.
    ///
    /// # Errors
    /// A higher reign was proven.
    pub fn reigns(&self) -> Result<(), Status> {
        if self.reign.has_ended() { Err(refusal::stopping()) } else { Ok(()) }
    }

    /// Asks on the writing thread whether a change is taken.
    pub(super) fn pass(&self) -> impl Fn() -> Result<(), Held> + Send + 'static {
        let (gate, reign) = (self.gate.clone(), self.reign.clone());
        move || if reign.has_ended() { Err(Held::Stopping) } else { gate.pass() }
    }

    /// Takes no more changes, and answers when the replica has all there are on stable storage.
    ///
    /// # Errors
    /// This reign has ended. Or the replica is not up to date in time; this server then goes on, as it does when the
    /// replica follows again, or by itself [`STANDS_DOWN`](crate::server::gate::STANDS_DOWN) later.
    ///
    /// # Cancel safety
    /// The server stands down all the same, for so long.
    pub async fn stand_down(&self) -> Result<Position, Status> {
        self.reigns()?;
        self.gate.stand_down();
        // What is being written now is behind this write.
        let drained = self.master.write(Priority::Sync, |write| write.founded_head()).await;
        drained.map_err(|error| self.storage_failed(&error))?;
        let durable = tokio::time::timeout(DRAINS, self.replicating.has_all()).await;
        durable.map_err(|_| {
            self.goes_on();
            Status::unavailable("the replica did not get everything in time; this server goes on")
        })
    }

    /// Whether this device can be the replica of a successor: it goes on as a client.
    #[must_use]
    pub fn goes_on_as_client(&self) -> bool {
        self.reign.goes_on_as_client()
    }

    /// The replica follows from now on, so it does not take over: this server goes on.
    pub fn goes_on(&self) {
        self.gate.go_on();
    }

    /// Looks at the highest reign a device has seen. One that proves a higher reign means
    /// that this server was superseded; one beside this reign that two devices claim it. Either way it says
    /// so and takes nothing more from that device.
    ///
    /// # Errors
    /// [`Reason::Superseded`] with the claim that speaks against the caller: that of the successor, or this
    /// server's own.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn check_claim(&self, claim: &Claim, head: &Head) -> Result<(), Status> {
        let epoch = claim.promotion.record.epoch;
        if epoch == head.epoch {
            return Ok(());
        }
        let read =
            |read: &MasterRead<'_>| Ok((read.lineage()?, lineage(read)?, read.issuers()?, read.members()?));
        let read = self.master.read(READ_DEADLINE, read).await;
        let (records, lineage, issuers, members) = read.map_err(|error| self.storage_failed(&error))?;
        let superseded = epoch.number > head.epoch.number;
        let released = self.roster.member(claim.promotion.record.device).is_some_and(|row| row.released);
        // An unproven claim seals nobody: it may come from a device that was deceived. Nor does that of a device
        // which was released: its key still signs.
        if released
            || !(superseded || lineage.is_contested_by(&epoch))
            || self.anchor.verify_claim(claim, &issuers).is_err()
        {
            return Ok(());
        }
        let (claim, text) = if superseded {
            if let Err(fault) = self.reign.seal(claim).await {
                self.faults.set(fault.clone());
                return Err(Status::unavailable(fault.to_string()));
            }
            (Some(claim.clone()), "another device became the group's server")
        } else {
            self.contest(&claim.promotion);
            let own = records.last().map(|own| Claim::of(own.clone(), &issuers, &members));
            (own, "two devices became the group's server; an operator has to decide which one stays")
        };
        let claim = claim.as_ref().map(claim_to_wire);
        let refusal = wire::Refusal { claim, ..refusal::refusal(Reason::Superseded, text) };
        Err(refusal::from_refusal(Code::FailedPrecondition, &refusal))
    }

    /// Notes that another device claims this reign by a verified record: no change is taken until an
    /// operator decides ([`Serving::stay`]).
    pub fn contest(&self, rival: &Signed<Promotion>) {
        let device = rival.record.device;
        if self.gate.contest(rival) {
            self.communication.record(Event::new(EventCode::Contested).peer(device));
        }
        let name =
            self.roster.member(device).map_or_else(|| device.to_string(), |member| member.name.clone());
        self.faults.set(Fault::with_detail(FaultCode::Forked, format_args!("the other one is {name}")));
    }

    /// Which other devices claim this reign.
    #[must_use]
    pub fn rivals(&self) -> Vec<Signed<Promotion>> {
        self.gate.rivals()
    }

    /// Has this server stay where two claim the reign, by a record above both that names the others as
    /// ended. The devices that follow them offer what this one lacks. Returns the new reign's epoch.
    ///
    /// # Errors
    /// Nobody contests this reign, or the database fails.
    ///
    /// # Cancel safety
    /// It may be decided although the future was dropped; deciding again finds nothing to decide.
    pub async fn stay(&self, operator: &str, nonce: [u8; 16]) -> Result<Epoch, Status> {
        let rivals = self.gate.rivals();
        let (own, group) = (self.issuing.device(), self.anchor.group);
        let (Some(highest), Some(row)) =
            (rivals.iter().map(|rival| rival.record.epoch.number).max(), self.roster.member(own))
        else {
            return Err(Status::failed_precondition(
                "no other device is known to claim this group; nothing was changed",
            ));
        };
        let (issuing, operator, pass) = (self.issuing.clone(), operator.to_owned(), self.pass());
        let written: Arc<Mutex<Option<(Epoch, Member)>>> = Arc::default();
        let note = written.clone();
        let write = move |write: &MasterWrite<'_>| {
            if pass() == Err(Held::Stopping) {
                return Ok(());
            }
            let head = write.founded_head()?;
            let lineage = lineage(write)?;
            let issuers = write.issuers()?;
            let issuer = issuers.into_iter().find(|issuer| issuer.record.device == own);
            let issuer = issuer.ok_or(DecodeError::Invalid("no certificate of this server's key"))?;
            let epoch = Epoch { number: head.epoch.number.max(highest) + 1, nonce };
            let promotion = issuing.sign_promotion(Promotion {
                group,
                epoch,
                parent: Some(Parent {
                    epoch: head.epoch,
                    sequence: head.sequence,
                    chain: head.chain,
                    transaction: 0,
                    page_digest: [0; 16],
                }),
                ends: ended(&rivals, &lineage),
                device: own,
                operator: operator.clone(),
                reason: PromotionReason::Chosen,
                made_at: unix_millis(),
            });
            let member = issuing.sign_member(Member { version: row.version + 1, ..Member::clone(&row) });
            let replication = write.replication()?;
            write.begin_reign(&master::Reign {
                promotion,
                issuer,
                member: member.clone(),
                known: head.sequence,
            })?;
            write.set_replication(replication.as_ref())?;
            *note.lock().unwrap_or_else(PoisonError::into_inner) = Some((epoch, member.record));
            Ok(())
        };
        match self.master.write(Priority::Sync, write).await {
            // The replica follows; the decision counts all the same.
            Ok(()) | Err(Error::Unconfirmed) => {}
            Err(error) => return Err(self.storage_failed(&error)),
        }
        let written = written.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((epoch, row)) = written else { return Err(refusal::stopping()) };
        self.gate.settle();
        self.faults.clear(FaultCode::Forked);
        self.roster.update([row]);
        // Also tells all that follow.
        self.reload_membership().await.map_err(|error| self.storage_failed(&error))?;
        Ok(epoch)
    }
}

/// The rivals' reigns, and those before them that are not of this history either: a device may have slept since.
fn ended(rivals: &[Signed<Promotion>], lineage: &Lineage) -> Vec<Epoch> {
    let mut ends: Vec<Epoch> = rivals.iter().map(|rival| rival.record.epoch).collect();
    let before = rivals.iter().filter_map(|rival| rival.record.parent.as_ref()).map(|parent| parent.epoch);
    ends.extend(before.filter(|epoch| lineage.is_contested_by(epoch)));
    let mut seen = Vec::new();
    ends.retain(|epoch| {
        !seen.contains(epoch) && seen.len() < Promotion::MAX_ENDS && {
            seen.push(*epoch);
            true
        }
    });
    ends
}
