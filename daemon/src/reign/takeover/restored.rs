//! The steps of a takeover by an archive: a database that was made from it lies beside the master, over which nobody
//! reigns yet. What must not come undone is read while no server runs here, so nothing is added behind it. I-18, I-19.

use std::path::PathBuf;

use mfpsync_storage::master::{Head, Master, Reign, Since};
use mfpsync_storage::model::{
    Epoch, IssuingCertificate, Member, Promotion, PromotionReason, Sequence, Signed,
};
use mfpsync_storage::{Error, Inline};

use super::{Steps, issuing};
use crate::clock::unix_millis;
use crate::control_file::ControlFile;
use crate::fault::Fault;
use crate::group::{self, RESTORED_FILE};
use crate::storage_fault::start_fault;

/// How far a new reign's number is above all that is known, where others may have reigned unheard: the archive was made
/// before, and whoever made it is lost. A number that was given already would be a second reign of that number.
const UNHEARD: u64 = 1_000;

/// What the database that is replaced knows.
#[derive(Default)]
struct Replaced {
    head: Option<Head>,
    since: Since,
}

impl Steps {
    /// The one moment that counts, for an archive: from its record on this device reigns.
    pub(super) fn decide_restored(&self) -> Result<Signed<Promotion>, Fault> {
        let read = Inline::<Master>::open(&self.restored(), false)
            .and_then(|master| master.read(|read| Ok((read.founded_head()?, read.issuers()?))));
        let (head, issuers) = read.map_err(|error| start_fault(&error))?;
        let (key, _) = issuing(&self.device, &self.certificates(issuers))?;
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
        let known = self.own.lineage.last().map_or(0, |last| last.record.epoch.number);
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
        if self.path().exists() {
            let aside = mfpsync_storage::retire(&self.path())?;
            tracing::info!(?aside, "the database of before was moved aside");
        }
        mfpsync_storage::place(&self.restored(), &self.path())
    }

    fn reign_over_restored(&self, promotion: Signed<Promotion>) -> Result<(), Fault> {
        let failed = |error: Error| start_fault(&error);
        let mut master = Inline::<Master>::open(&self.restored(), false).map_err(failed)?;
        let (head, issuers) =
            master.read(|read| Ok((read.founded_head()?, read.issuers()?))).map_err(failed)?;
        if head.epoch != promotion.record.epoch {
            let (key, issuer) = issuing(&self.device, &self.certificates(issuers))?;
            let replaced = self.replaced(&head).map_err(failed)?;
            let since = replaced.since.and(self.heard());
            let archived = master.read(|read| read.members()).map_err(failed)?;
            let rows: Vec<Member> = archived
                .into_iter()
                .chain(since.members.iter().cloned())
                .map(|signed| signed.record)
                .collect();
            let member = self.row(&key, &rows, &promotion.record);
            let made = replaced.head.map_or(Sequence::ZERO, |head| head.sequence);
            let known = self.takeover.known.max(made).max(head.sequence);
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
        let head = match group::head(&self.path()) {
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
        let since = Inline::<Master>::open(&self.path(), false)?.read(Since::of)?;
        Ok(Replaced { head, since })
    }

    /// What this device's own data knows of what happened.
    fn heard(&self) -> Since {
        Since {
            issuers: self.own.issuers.clone(),
            members: self.own.members.clone(),
            erasures: self.own.erasures.clone(),
        }
    }

    fn certificates(&self, archived: Vec<Signed<IssuingCertificate>>) -> Vec<Signed<IssuingCertificate>> {
        archived.into_iter().chain(self.own.issuers.iter().cloned()).collect()
    }

    fn restored(&self) -> PathBuf {
        self.device.config.data_dir.join(RESTORED_FILE)
    }
}
