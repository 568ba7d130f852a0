//! From replica, or from an archive, to server, in steps that outlast a power cut at any moment. I-10.
//!
//! 1. The operator's decision stands in the control file, with the role. The replica part ends, so the copy
//!    stands still.
//! 2. The copy is read. A server that stood down is asked once more whether it still does, and where it stands.
//!    Then the copy's position goes into a signed record, and that into the control file with its epoch. This is
//!    the one moment that counts: before it the copy is a copy, after it this device reigns.
//! 3. The copy's file becomes the master database.
//! 4. The record becomes part of it, in one transaction with this device's row.
//! 5. The control file forgets the takeover.
//!
//! By an archive (`takeover/restored.rs`) it is the same with a database of our making beside the master: it gets the reign first
//! and its place then.
//!
//! The server part runs this whenever it starts with a takeover in the control file, from the step that is
//! due. The binding as a replica ends with step 1, as the role says.

mod restored;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mfpsync_storage::codec::DecodeError;
use mfpsync_storage::local::Membership;
use mfpsync_storage::master::{Founding, Head, Master, MasterWrite, Reign, Replication};
use mfpsync_storage::model::{
    Capabilities, Epoch, ErasedMark, IssuingCertificate, Member, Parent, Promotion, PromotionReason, Signed,
};
use mfpsync_storage::physical::{Position, Standby};
use mfpsync_storage::{Error, Inline};

use crate::authority::IssuingKey;
use crate::clock::unix_millis;
use crate::communication::{Code, Event};
use crate::control_file::{ControlError, ControlFile, Takeover, Way};
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::fault::{Fault, FaultCode};
use crate::master_at_rest::Turn;
use crate::replica::{self, DIRECTORY, StoodDown};
use crate::storage_fault::start_fault;

/// Finishes the takeover under way; false if there is none. Blocks a thread for as long as the copy takes to be
/// read once.
///
/// # Errors
/// The fault: there is no whole copy, it is not what was written, this device's key is not certified, the server
/// that had stood down goes on, or the storage fails. What is done stands, and is not done again.
///
/// # Cancel safety
/// It goes on; starting again waits for nothing but the files, which one process alone uses.
pub async fn finish(device: &Arc<Device>) -> Result<bool, Fault> {
    // A start that was given up may have left a step running.
    let turn = device.master_at_rest.turn().await;
    let Some(takeover) = device.control.current().takeover else { return Ok(false) };
    if takeover.way == Way::Restored && takeover.record.is_empty() && !restored::is_staged(device) {
        return restored::give_up(device).await.map(|()| false);
    }
    let own = device.own.db().read(READ_DEADLINE, |read| {
        Ok(Own {
            issuers: read.issuers()?,
            lineage: read.lineage()?,
            members: read.members()?,
            membership: read.membership()?,
            erasures: read.erasures()?,
        })
    });
    let own = own.await.map_err(|error| start_fault(&error))?;
    let steps = Arc::new(Steps { device: device.clone(), takeover, own });
    let promotion = if !steps.takeover.record.is_empty() {
        steps.decided()?
    } else if steps.takeover.way == Way::Restored {
        let deciding = steps.clone();
        step(&turn, move || deciding.decide_restored()).await?
    } else {
        let reading = steps.clone();
        let position = step(&turn, move || reading.whole_copy()).await?;
        if matches!(steps.takeover.way, Way::HandedOver { .. }) {
            still_stands_down(device, &position).await?;
        }
        let deciding = steps.clone();
        step(&turn, move || deciding.decide(&position)).await?
    };
    let epoch = promotion.record.epoch;
    step(&turn, move || match steps.takeover.way {
        Way::Restored => steps.begin_restored(promotion),
        Way::Lost | Way::HandedOver { .. } | Way::Anew => steps.begin(promotion),
    })
    .await?;
    tracing::info!(epoch = epoch.number, "this device reigns");
    device.communication.record(Event::new(Code::TookOver));
    Ok(true)
}

/// Carries out a step, to its end, whoever waits for it.
async fn step<T: Send + 'static>(
    turn: &Turn,
    step: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = turn.run(move |_| step()).await;
    done.unwrap_or_else(|_| Err(Fault::with_detail(FaultCode::Part, "takeover")))
}

/// Asks the server once more, right before the record: since it stood down it may have gone on, as it does after a
/// while, or when this device was switched off. Then the copy is a copy again.
async fn still_stands_down(device: &Device, position: &Position) -> Result<(), Fault> {
    device.load_roster().await.map_err(|error| start_fault(&error))?;
    let why = match replica::stand_down(device).await {
        Ok(StoodDown { last, .. })
            if (last.epoch, last.transaction, last.digest)
                == (position.epoch, position.transaction, position.digest) =>
        {
            return Ok(());
        }
        Ok(_) => "it has made changes since".to_owned(),
        Err(error) => error.to_string(),
    };
    let role = device.control.write(ControlFile::take_back_takeover).await?;
    device.reign.turn_to(role);
    Err(Fault::with_detail(FaultCode::NotTakenOver, why))
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

/// What the device knows of its group by itself.
struct Own {
    issuers: Vec<Signed<IssuingCertificate>>,
    lineage: Vec<Signed<Promotion>>,
    members: Vec<Signed<Member>>,
    membership: Option<Membership>,
    erasures: BTreeMap<String, ErasedMark>,
}

struct Steps {
    device: Arc<Device>,
    takeover: Takeover,
    own: Own,
}

impl Steps {
    /// Steps 3 to 5.
    fn begin(&self, promotion: Signed<Promotion>) -> Result<(), Fault> {
        let (key, issuer) = issuing(&self.device, &self.own.issuers)?;
        self.place(&promotion.record).map_err(|error| start_fault(&error))?;
        let anew = self.takeover.way == Way::Anew;
        let begun = Inline::<Master>::open(self.path(), anew).and_then(|mut master| {
            master.write(|write| match write.head()? {
                Some(head) if head.epoch == promotion.record.epoch => Ok(()),
                None if anew => self.found(&key, promotion, issuer, write),
                head => self.go_on(&key, promotion, issuer, head, write),
            })
        });
        begun.map_err(|error| start_fault(&error))?;
        self.control(ControlFile::end_takeover)
    }

    /// The copy's data goes on under this device.
    fn go_on(
        &self,
        key: &IssuingKey,
        promotion: Signed<Promotion>,
        issuer: Signed<IssuingCertificate>,
        head: Option<Head>,
        write: &MasterWrite<'_>,
    ) -> Result<(), Error> {
        let parent = promotion.record.parent.as_ref();
        let stands = |head: &Head| {
            parent.is_some_and(|parent| {
                (head.epoch, head.sequence, head.chain) == (parent.epoch, parent.sequence, parent.chain)
            })
        };
        if !head.as_ref().is_some_and(stands) {
            return Err(DecodeError::Invalid("the database is not where the reign before ended").into());
        }
        let before = write.lineage()?.pop().map(|last| last.record.device);
        let set = write.replication()?;
        let rows: Vec<Member> = write.members()?.into_iter().map(|signed| signed.record).collect();
        let member = self.row(key, &rows, &promotion.record);
        write.begin_reign(&Reign { promotion, issuer, member, known: self.takeover.known })?;
        let swaps = self.takeover.way == Way::HandedOver { swaps: true };
        let Some((of, set)) = before.zip(set).filter(|_| swaps) else { return Ok(()) };
        let row = rows.into_iter().find(|row| row.device == of && !row.released);
        row.map_or(Ok(()), |row| self.swap(key, row, set, write))
    }

    /// The group goes on under this device with what its devices have.
    fn found(
        &self,
        key: &IssuingKey,
        promotion: Signed<Promotion>,
        issuer: Signed<IssuingCertificate>,
        write: &MasterWrite<'_>,
    ) -> Result<(), Error> {
        let Own { issuers, lineage, members, membership, .. } = &self.own;
        let known = membership.as_ref().zip(lineage.first());
        let (membership, founded) = known.ok_or(DecodeError::Invalid("this device never met its group"))?;
        write.add_promotion(founded)?;
        issuers.iter().try_for_each(|issuer| write.put_issuer(issuer))?;
        members.iter().try_for_each(|member| write.put_member(member))?;
        let rows: Vec<Member> = members.iter().map(|signed| signed.record.clone()).collect();
        let member = self.row(key, &rows, &promotion.record);
        write.found(&Founding {
            group_name: membership.group_name.clone(),
            root_key: membership.root_key,
            promotion,
            issuer,
            member,
        })
    }

    fn whole_copy(&self) -> Result<Position, Fault> {
        let mut copy = Standby::open(&self.standby()).map_err(|error| start_fault(&error))?;
        let whole = copy.verify(&|| false).map_err(|error| start_fault(&error))?;
        let position = copy.position().filter(|_| whole).ok_or_else(|| {
            Fault::with_detail(FaultCode::DbCorrupt, "there is no whole copy here that could take over")
        })?;
        copy.close().map_err(|error| start_fault(&error))?;
        Ok(position)
    }

    /// Step 2.
    fn decide(&self, position: &Position) -> Result<Signed<Promotion>, Fault> {
        let (key, _) = issuing(&self.device, &self.own.issuers)?;
        let promotion = key.sign_promotion(self.record(position)?);
        let (epoch, record) = (promotion.record.epoch, promotion.encode());
        self.control(|file| file.decide_takeover(epoch, &record))?;
        Ok(promotion)
    }

    fn record(&self, position: &Position) -> Result<Promotion, Fault> {
        let seen = self.device.control.current().epoch.map_or(0, |epoch| epoch.number);
        if seen > position.epoch.number {
            return Err(Fault::with_detail(FaultCode::Superseded, "the copy is of an earlier reign"));
        }
        Ok(Promotion {
            group: position.group,
            epoch: Epoch { number: position.epoch.number + 1, nonce: self.device.nonce()? },
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
            reason: match self.takeover.way {
                Way::HandedOver { .. } => PromotionReason::Transferred,
                Way::Lost | Way::Anew | Way::Restored => PromotionReason::Promoted,
            },
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
            let aside = mfpsync_storage::retire(path)?;
            tracing::info!(
                ?aside,
                epoch = promotion.epoch.number,
                "an earlier master database was moved aside"
            );
        }
        Standby::open(&self.standby())?.take_over(path)
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
        let known = rows.iter().filter(|member| member.device == own).max_by_key(|member| member.version);
        let capabilities = Capabilities::CLIENT.with(Capabilities::SERVE).with(Capabilities::ADMINISTER);
        key.sign_member(Member {
            group: promotion.group,
            device: own,
            public_key: self.device.identity.public_key(),
            name: self.device.config.name.clone(),
            capabilities,
            released: false,
            version: known.map_or(1, |known| known.version + 1),
            endpoints: self.device.endpoints(&self.device.config.listen),
            issuer: own,
        })
    }

    fn control(&self, write: impl FnOnce(&ControlFile) -> Result<(), ControlError>) -> Result<(), Fault> {
        write(self.device.control.file()?).map_err(|error| error.fault())
    }

    fn path(&self) -> &Path {
        self.device.master_at_rest.path()
    }

    fn standby(&self) -> PathBuf {
        self.device.config.data_dir.join(DIRECTORY)
    }
}
