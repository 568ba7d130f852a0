//! The group itself: founding, lineage, membership, and how far each device is.

use rusqlite::{OptionalExtension, params};

use super::{MasterRead, MasterWrite};
use crate::error::Result;
use crate::model::{
    Chain, DeviceId, Epoch, Incarnation, IssuingCertificate, Member, Promotion, PromotionReason, PublicKey,
    Sequence, Signed,
};
use crate::roster;

/// What a new group starts with.
#[derive(Debug, Clone)]
pub struct Founding {
    /// Its name for people.
    pub group_name: String,
    /// Its trust anchor.
    pub root_key: PublicKey,
    /// The founding record: the first reign.
    pub promotion: Signed<Promotion>,
    /// The first issuing certificate.
    pub issuer: Signed<IssuingCertificate>,
    /// The founder's own row.
    pub member: Signed<Member>,
}

/// What another reign begins with.
#[derive(Debug, Clone)]
pub struct Reign {
    /// Its record.
    pub promotion: Signed<Promotion>,
    /// The certificate of the key that signed it.
    pub issuer: Signed<IssuingCertificate>,
    /// The row of the device that reigns.
    pub member: Signed<Member>,
    /// The last change that the reign before is known to have made.
    pub known: Sequence,
}

/// How far the server knows a device to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The device.
    pub device: DeviceId,
    /// Its local state's life.
    pub incarnation: Incarnation,
    /// It has everything up to here.
    pub sequence: Sequence,
    /// When it had everything up to here, no operation of an earlier view waited: whatever it offers
    /// from now on was made by somebody who saw that much.
    pub settled: Sequence,
    /// Two devices used one identity: nothing is taken until a person decides.
    pub quarantined: bool,
}

impl MasterWrite<'_> {
    /// Writes the first state of a new group into an empty file.
    ///
    /// # Errors
    /// The database's; founding twice violates the head's key.
    pub fn found(&self, founding: &Founding) -> Result<()> {
        let record = &founding.promotion.record;
        self.connection.execute(
            "INSERT INTO head (id, group_id, group_name, root_key, epoch, nonce, sequence, chain, items,
                    tombstone_floor, hours_run)
                VALUES (1, ?, ?, ?, ?, ?, 0, ?, 0, 0, 0)",
            params![
                record.group.0,
                founding.group_name,
                founding.root_key.0,
                record.epoch.number as i64,
                record.epoch.nonce,
                Chain::START.0
            ],
        )?;
        self.add_promotion(&founding.promotion)?;
        self.put_issuer(&founding.issuer)?;
        self.put_member(&founding.member)
    }

    /// Begins another reign over the same data: the record counts, its device's row and certificate with
    /// it, and no device is the replica.
    ///
    /// # Errors
    /// The database's.
    pub fn begin_reign(&self, reign: &Reign) -> Result<()> {
        let Epoch { number, nonce } = reign.promotion.record.epoch;
        let sql = "UPDATE head SET epoch = ?, nonce = ? WHERE id = 1";
        self.connection.execute(sql, params![number as i64, nonce])?;
        self.add_promotion(&reign.promotion)?;
        self.put_issuer(&reign.issuer)?;
        self.put_member(&reign.member)?;
        self.connection.execute("DELETE FROM offered", [])?;
        // One that was handed over, or chosen, lacks nothing that those before it had.
        if reign.promotion.record.reason == PromotionReason::Promoted {
            self.begin_succession(reign.known)?;
        }
        self.set_replication(None)
    }

    /// Appends a promotion record to the lineage.
    ///
    /// # Errors
    /// The database's.
    pub fn add_promotion(&self, promotion: &Signed<Promotion>) -> Result<()> {
        roster::put_promotion(self.connection, promotion)
    }

    /// Adds an issuing certificate.
    ///
    /// # Errors
    /// The database's.
    pub fn put_issuer(&self, issuer: &Signed<IssuingCertificate>) -> Result<()> {
        roster::put_issuer(self.connection, issuer)
    }

    /// Adds or replaces a device's row.
    ///
    /// # Errors
    /// The database's.
    pub fn put_member(&self, member: &Signed<Member>) -> Result<()> {
        roster::put_member(self.connection, member)
    }

    /// Forgets how far a device is, and that it was quarantined: it begins anew.
    ///
    /// # Errors
    /// The database's.
    pub fn forget_progress(&self, device: DeviceId) -> Result<()> {
        self.connection.execute("DELETE FROM progress WHERE device = ?", [device.0])?;
        Ok(())
    }

    /// Notes how far a device is.
    ///
    /// # Errors
    /// The database's.
    pub fn put_progress(&self, progress: &Progress) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO progress (device, incarnation, sequence, settled, quarantined)
                    VALUES (?, ?, ?, ?, ?)
                    ON CONFLICT (device) DO UPDATE SET incarnation = excluded.incarnation,
                        sequence = excluded.sequence, settled = excluded.settled,
                        quarantined = excluded.quarantined",
            )?
            .execute(params![
                progress.device.0,
                progress.incarnation.0 as i64,
                progress.sequence.0 as i64,
                progress.settled.0 as i64,
                progress.quarantined
            ])?;
        Ok(())
    }
}

impl MasterRead<'_> {
    /// The lineage, oldest first.
    ///
    /// # Errors
    /// The database's, or a damaged record.
    pub fn lineage(&self) -> Result<Vec<Signed<Promotion>>> {
        roster::lineage(self.connection)
    }

    /// All issuing certificates.
    ///
    /// # Errors
    /// The database's, or a damaged record.
    pub fn issuers(&self) -> Result<Vec<Signed<IssuingCertificate>>> {
        roster::issuers(self.connection)
    }

    /// All membership rows, released devices included.
    ///
    /// # Errors
    /// The database's, or a damaged record.
    pub fn members(&self) -> Result<Vec<Signed<Member>>> {
        roster::members(self.connection)
    }

    /// How far a device is.
    ///
    /// # Errors
    /// The database's.
    pub fn progress(&self, device: DeviceId) -> Result<Option<Progress>> {
        const SQL: &str = "SELECT incarnation, sequence, settled, quarantined FROM progress WHERE device = ?";
        let progress = self.connection.prepare_cached(SQL)?.query_row([device.0], |row| {
            Ok(Progress {
                device,
                incarnation: Incarnation(row.get::<_, i64>(0)? as u64),
                sequence: Sequence(row.get::<_, i64>(1)? as u64),
                settled: Sequence(row.get::<_, i64>(2)? as u64),
                quarantined: row.get(3)?,
            })
        });
        Ok(progress.optional()?)
    }
}
