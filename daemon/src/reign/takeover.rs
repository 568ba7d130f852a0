//! From replica to server, in steps that outlast a power cut at any moment. I-10.
//!
//! 1. The operator's decision stands in the control file, with the role. The replica part ends, so the copy
//!    stands still.
//! 2. The copy's position goes into a signed record, and that into the control file with its epoch. This is
//!    the one moment that counts: before it the copy is a copy, after it this device reigns.
//! 3. The copy's file becomes the master database.
//! 4. The record becomes part of it, in one transaction with this device's row.
//! 5. The control file forgets the takeover.
//!
//! The server part runs this whenever it starts with a takeover in the control file, from the step that is
//! due. The binding as a replica ends with step 1, as the role says.

use std::path::PathBuf;
use std::sync::Arc;

use mfpsync_storage::master::{Master, MasterWrite, Reign, Replication};
use mfpsync_storage::model::{
    Capabilities, Epoch, IssuingCertificate, Member, Parent, Promotion, PromotionReason, Signed,
};
use mfpsync_storage::physical::{Position, Standby};
use mfpsync_storage::{Error, Inline};
use ring::rand::SecureRandom;

use crate::authority::IssuingKey;
use crate::clock::unix_millis;
use crate::communication::{Code, Event};
use crate::control_file::{ControlError, ControlFile, Takeover};
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::fault::{Fault, FaultCode};
use crate::group::MASTER_FILE;
use crate::replica::DIRECTORY;
use crate::storage_fault::start_fault;

/// Finishes the takeover under way; false if there is none. Blocks a thread for as long as the copy takes to be
/// read once.
///
/// # Errors
/// The fault: there is no whole copy, it is not what was written, this device's key is not certified, or
/// the storage fails. What is done stands, and is not done again.
///
/// # Cancel safety
/// It goes on; starting again waits for nothing but the files, which one process alone uses.
pub async fn finish(device: &Arc<Device>) -> Result<bool, Fault> {
    let Some(takeover) = device.control.current().takeover else { return Ok(false) };
    let issuers = device.own.db().read(READ_DEADLINE, |read| read.issuers()).await;
    let issuers = issuers.map_err(|error| start_fault(&error))?;
    let steps = Steps { device: device.clone(), takeover, issuers };
    let reign = tokio::task::spawn_blocking(move || steps.run()).await;
    let epoch = reign.unwrap_or_else(|_| Err(Fault::with_detail(FaultCode::Part, "takeover")))?;
    tracing::info!(epoch = epoch.number, "this device reigns");
    device.communication.record(Event::new(Code::TookOver));
    Ok(true)
}

/// What the copy's device may sign with, if it may.
///
/// # Errors
/// The key store's, or there is no certificate of the key.
pub fn issuing(
    device: &Device,
    issuers: &[Signed<IssuingCertificate>],
) -> Result<(IssuingKey, Signed<IssuingCertificate>), Fault> {
    let key = IssuingKey::load(&*device.keys, device.identity.device())
        .map_err(|error| Fault::with_detail(FaultCode::Keys, error))?;
    let certified = key.and_then(|key| {
        let certificate = issuers.iter().find(|signed| {
            (signed.record.device, signed.record.public_key) == (key.device(), key.public_key())
        });
        Some((key, certificate?.clone()))
    });
    certified.ok_or_else(|| {
        Fault::with_detail(
            FaultCode::Keys,
            "the group's recovery kit has not certified this device as a server",
        )
    })
}

struct Steps {
    device: Arc<Device>,
    takeover: Takeover,
    issuers: Vec<Signed<IssuingCertificate>>,
}

impl Steps {
    fn run(&self) -> Result<Epoch, Fault> {
        let (key, issuer) = issuing(&self.device, &self.issuers)?;
        let promotion = if self.takeover.record.is_empty() { self.decide(&key)? } else { self.decided()? };
        self.place(&promotion.record).map_err(|error| start_fault(&error))?;
        let epoch = promotion.record.epoch;
        let begun = Inline::<Master>::open(&self.path(), false).and_then(|mut master| {
            master.write(|write| {
                if write.founded_head()?.epoch == epoch {
                    return Ok(());
                }
                let before = write.lineage()?.pop().map(|last| last.record.device);
                let set = write.replication()?;
                let rows: Vec<Member> = write.members()?.into_iter().map(|signed| signed.record).collect();
                let member = self.row(&key, &rows, &promotion.record);
                write.begin_reign(&Reign { promotion, issuer, member, known: self.takeover.known })?;
                let Some((of, set)) = before.zip(set).filter(|_| self.takeover.swaps) else { return Ok(()) };
                let row = rows.into_iter().find(|row| row.device == of && !row.released);
                row.map_or(Ok(()), |row| self.swap(&key, row, set, write))
            })
        });
        begun.map_err(|error| start_fault(&error))?;
        self.control(ControlFile::end_takeover)?;
        Ok(epoch)
    }

    /// Step 2.
    fn decide(&self, key: &IssuingKey) -> Result<Signed<Promotion>, Fault> {
        let mut copy = Standby::open(&self.standby()).map_err(|error| start_fault(&error))?;
        let whole = copy.verify(&|| false).map_err(|error| start_fault(&error))?;
        let position = copy.position().filter(|_| whole).ok_or_else(|| {
            Fault::with_detail(FaultCode::DbCorrupt, "there is no whole copy here that could take over")
        })?;
        copy.close().map_err(|error| start_fault(&error))?;
        let promotion = key.sign_promotion(self.record(&position)?);
        let (epoch, record) = (promotion.record.epoch, promotion.encode());
        self.control(|file| file.decide_takeover(epoch, &record))?;
        Ok(promotion)
    }

    fn record(&self, position: &Position) -> Result<Promotion, Fault> {
        let seen = self.device.control.current().epoch.map_or(0, |epoch| epoch.number);
        if seen > position.epoch.number {
            return Err(Fault::with_detail(FaultCode::Superseded, "the copy is of an earlier reign"));
        }
        let mut nonce = [0; 16];
        let random: &dyn SecureRandom = &*self.device.random;
        random.fill(&mut nonce).map_err(|_| Fault::with_detail(FaultCode::Keys, "no random numbers"))?;
        Ok(Promotion {
            group: position.group,
            epoch: Epoch { number: position.epoch.number + 1, nonce },
            parent: Some(Parent {
                epoch: position.epoch,
                sequence: position.sequence,
                chain: position.chain,
                transaction: position.transaction,
                page_digest: position.digest.to_bytes(),
            }),
            ends: Vec::new(),
            device: self.device.identity.device(),
            operator: self.takeover.operator.clone(),
            reason: PromotionReason::Promoted,
            made_at: unix_millis(),
        })
    }

    fn decided(&self) -> Result<Signed<Promotion>, Fault> {
        Promotion::decode(&self.takeover.record)
            .map_err(|error| Fault::with_detail(FaultCode::ControlFile, error))
    }

    /// Step 3. What stood in the way is of a reign that ended before, and is kept.
    fn place(&self, promotion: &Promotion) -> Result<(), Error> {
        let path = self.path();
        if !Standby::is_whole(&self.standby())? {
            // Moved already.
            return Ok(());
        }
        if path.exists() {
            let aside = mfpsync_storage::retire(&path)?;
            tracing::info!(
                ?aside,
                epoch = promotion.epoch.number,
                "an earlier master database was moved aside"
            );
        }
        Standby::open(&self.standby())?.take_over(&path)
    }

    /// Makes the device that reigned before, whose row this is, the replica, as this one was.
    fn swap(
        &self,
        key: &IssuingKey,
        row: Member,
        set: Replication,
        write: &MasterWrite<'_>,
    ) -> Result<(), Error> {
        let capabilities = row.capabilities.with(Capabilities::REPLICATE);
        let (device, issuer) = (row.device, key.device());
        write.put_member(&key.sign_member(Member {
            capabilities,
            version: row.version + 1,
            issuer,
            ..row
        }))?;
        write.set_replication(Some(&Replication { device, ..set }))
    }

    fn row(&self, key: &IssuingKey, rows: &[Member], promotion: &Promotion) -> Signed<Member> {
        let own = self.device.identity.device();
        let known = rows.iter().find(|member| member.device == own).cloned();
        let capabilities = Capabilities::CLIENT.with(Capabilities::SERVE).with(Capabilities::ADMINISTER);
        key.sign_member(Member {
            group: promotion.group,
            device: own,
            public_key: self.device.identity.public_key(),
            name: self.device.config.name.clone(),
            capabilities,
            released: false,
            version: known.as_ref().map_or(1, |known| known.version + 1),
            endpoints: known.map_or_else(Vec::new, |known| known.endpoints),
            issuer: own,
        })
    }

    fn control(&self, write: impl FnOnce(&ControlFile) -> Result<(), ControlError>) -> Result<(), Fault> {
        write(self.device.control.file()?).map_err(|error| error.fault())
    }

    fn path(&self) -> PathBuf {
        self.device.config.data_dir.join(MASTER_FILE)
    }

    fn standby(&self) -> PathBuf {
        self.device.config.data_dir.join(DIRECTORY)
    }
}
