//! The steps of a takeover by an archive: a database that was made from it lies beside the master, over which nobody
//! reigns yet. What must not come undone is read while no server runs here, so nothing is added behind it. I-18, I-19.

use std::path::PathBuf;

use mfpsync_replication::lineage::{Lineage, Standpoint};
use mfpsync_storage::master::{Head, Master, Reign, Since};
use mfpsync_storage::model::{Epoch, IssuingCertificate, Member, Promotion, PromotionReason, Signed};
use mfpsync_storage::{Error, Inline};

use super::{Own, Steps, issuing};
use crate::clock::unix_millis;
use crate::control_file::ControlFile;
use crate::device::Device;
use crate::fault::{Fault, FaultCode};
use crate::group::{self, RESTORED_FILE};
use crate::storage_fault::start_fault;

/// How far a new reign's number is above all that is known, where others may have reigned unheard: the archive was made
/// before, and whoever made it is lost. A number that was given already would be a second reign of that number.
const UNHEARD: u64 = 1_000;

/// What the database that is replaced knows.
#[derive(Default)]
struct Replaced {
    head: Option<Head>,
    lineage: Vec<Promotion>,
    since: Since,
}

/// Whether there is a database that was made from an archive.
pub(super) fn is_staged(device: &Device) -> bool {
    device.config.data_dir.join(RESTORED_FILE).exists()
}

/// There is nothing to restore: the decision is taken back, and what is here goes on.
pub(super) async fn give_up(device: &Device) -> Result<(), Fault> {
    let serves = device.master_at_rest.path().exists();
    let role = device.control.write(move |file| file.give_up_restore(serves)).await?;
    tracing::warn!("the database that was to be restored is gone; what is here goes on");
    if serves {
        return Ok(());
    }
    device.reign.turn_to(role);
    Err(Fault::with_detail(FaultCode::NotTakenOver, "the database that was to be restored is gone"))
}

/// Whether a history contains all that an archive holds.
fn follows(lineage: &[Promotion], archived: &Head) -> bool {
    Lineage::new(archived.group, lineage.to_vec())
        .is_ok_and(|lineage| lineage.standpoint(&archived.cursor()) == Standpoint::Continue)
}

impl Steps {
    /// The one moment that counts, for an archive: from its record on this device reigns.
    pub(super) fn decide_restored(&self) -> Result<Signed<Promotion>, Fault> {
        let read = Inline::<Master>::open(&self.restored(), false)
            .and_then(|master| master.read(|read| Ok((read.founded_head()?, read.issuers()?))));
        let (head, issuers) = read.map_err(|error| start_fault(&error))?;
        let (key, _) = issuing(&self.device, &self.certificates(&head, issuers))?;
        let replaced = self.replaced(&head).map_err(|error| start_fault(&error))?;
        let promotion = key.sign_promotion(Promotion {
            group: head.group,
            epoch: Epoch { number: self.number(&head, replaced.head.as_ref()), nonce: self.device.nonce()? },
            parent: Some(head.parent()),
            ends: Vec::new(),
            device: self.device.identity.device(),
            operator: self.takeover.operator.clone(),
            reason: PromotionReason::Restored,
            made_at: unix_millis(),
        });
        let (epoch, record) = (promotion.record.epoch, promotion.encode());
        self.control(|file| file.decide_takeover(epoch, &record))?;
        Ok(promotion)
    }

    /// Above all reigns that this device has heard of; and where it did not reign itself, above those it has not.
    fn number(&self, archived: &Head, replaced: Option<&Head>) -> u64 {
        let seen = self.device.control.current().epoch.map_or(0, |epoch| epoch.number);
        let known = self.heard(archived).2;
        let here = replaced.map_or(0, |head| head.epoch.number);
        let highest = archived.epoch.number.max(seen).max(known).max(here);
        if here == highest { highest + 1 } else { highest + UNHEARD }
    }

    /// The reign begins over what was restored, and that gets its place.
    pub(super) fn begin_restored(&self, promotion: Signed<Promotion>) -> Result<(), Fault> {
        // Otherwise it has its place already.
        if self.restored().exists() {
            self.reign_over_restored(promotion)?;
            self.place_restored().map_err(|error| start_fault(&error))?;
        }
        self.control(ControlFile::end_takeover)
    }

    fn place_restored(&self) -> Result<(), Error> {
        // A log without its database as well, as one who looked into it may leave it.
        if mfpsync_storage::remains(self.path()) {
            let aside = mfpsync_storage::retire(self.path())?;
            tracing::info!(?aside, "the database of before was moved aside");
        }
        mfpsync_storage::place(&self.restored(), self.path())
    }

    fn reign_over_restored(&self, promotion: Signed<Promotion>) -> Result<(), Fault> {
        let failed = |error: Error| start_fault(&error);
        let mut master = Inline::<Master>::open(&self.restored(), false).map_err(failed)?;
        let (head, issuers) =
            master.read(|read| Ok((read.founded_head()?, read.issuers()?))).map_err(failed)?;
        if head.epoch != promotion.record.epoch {
            let (key, issuer) = issuing(&self.device, &self.certificates(&head, issuers))?;
            let replaced = self.replaced(&head).map_err(failed)?;
            let since = replaced.since.and(self.heard(&head).1);
            let archived = master.read(|read| read.members()).map_err(failed)?;
            let rows: Vec<Member> = archived
                .into_iter()
                .chain(since.members.iter().cloned())
                .map(|signed| signed.record)
                .collect();
            let member = self.row(&key, &rows, &promotion.record);
            // Only of a history that goes on from there its numbers say how much is missing.
            let made = replaced.head.filter(|_| follows(&replaced.lineage, &head)).map(|head| head.sequence);
            let known = made.unwrap_or_default().max(self.takeover.known).max(head.sequence);
            let reign = Reign { promotion, issuer, member, known };
            let now = unix_millis();
            let again =
                master.write(|write| write.begin_restored_reign(&reign, &since, now)).map_err(failed)?;
            tracing::info!(
                releases = again.releases,
                erasures = again.erasures,
                items = again.items,
                "what happened since the archive was applied again"
            );
        }
        master.close().map_err(failed)
    }

    /// What the master here knows, if there is one of this group. One that is damaged may be why an archive is restored.
    fn replaced(&self, archived: &Head) -> Result<Replaced, Error> {
        let head = match group::head(self.path()) {
            Ok(head) => head.filter(|head| head.group == archived.group),
            Err(error @ (Error::Corrupt(_) | Error::Record(_) | Error::Foreign(_))) => {
                tracing::warn!(%error, "the database that is replaced cannot be read: releases and erasures that it \
                                        alone knows of are lost");
                None
            }
            Err(error) => return Err(error),
        };
        if head.is_none() {
            return Ok(Replaced::default());
        }
        let master = Inline::<Master>::open(self.path(), false)?;
        let (since, lineage) = master.read(|read| Ok((Since::of(read)?, read.lineage()?)))?;
        Ok(Replaced { head, lineage: lineage.into_iter().map(|signed| signed.record).collect(), since })
    }

    /// What this device's own data knows of the group: certificates, what happened, and the number of the last reign.
    /// Of another group nothing counts.
    fn heard(&self, archived: &Head) -> (Vec<Signed<IssuingCertificate>>, Since, u64) {
        if self.own.membership.as_ref().is_none_or(|own| own.group != archived.group) {
            return (Vec::new(), Since::default(), 0);
        }
        let Own { issuers, lineage, members, erasures, .. } = &self.own;
        let since = Since { issuers: issuers.clone(), members: members.clone(), erasures: erasures.clone() };
        (issuers.clone(), since, lineage.last().map_or(0, |last| last.record.epoch.number))
    }

    fn certificates(
        &self,
        head: &Head,
        archived: Vec<Signed<IssuingCertificate>>,
    ) -> Vec<Signed<IssuingCertificate>> {
        archived.into_iter().chain(self.heard(head).0).collect()
    }

    fn restored(&self) -> PathBuf {
        self.device.config.data_dir.join(RESTORED_FILE)
    }
}
