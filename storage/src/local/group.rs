//! The device's own state and its membership: joining, leaving, and who else belongs.

use rusqlite::{OptionalExtension, params};

use super::place::SHOWN;
use super::{LocalRead, LocalWrite};
use crate::codec::DecodeError;
use crate::error::Result;
use crate::model::{
    Cursor, DeviceId, GroupId, Incarnation, IssuingCertificate, Member, OperationNumber, Promotion,
    PublicKey, Signed,
};
use crate::roster;

/// The device's own counters and its place in the group's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceState {
    /// This life of the local state.
    pub incarnation: Incarnation,
    /// The last operation number given out.
    pub last_operation: OperationNumber,
    /// Outcomes up to here are stored, and nothing that waits builds on them.
    pub low_water: OperationNumber,
    /// Up to where the mirror has everything; none before the first batch.
    pub cursor: Option<Cursor>,
    /// A reset is under way: the mirror may hold what was deleted elsewhere.
    pub resetting: bool,
    /// Retained edits dropped for want of room, ever.
    pub retained_dropped: u64,
    /// The number of the reign followed last; zero before the first. Higher ones may have been heard of.
    pub followed: u64,
}

/// The group this device belongs to, and how to recognise its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: GroupId,
    /// Its name for people.
    pub group_name: String,
    /// The trust anchor.
    pub root_key: PublicKey,
}

impl LocalRead<'_> {
    /// The device's own state.
    ///
    /// # Errors
    /// The database's, or a file in which [`LocalWrite::initialise`] never ran.
    pub fn device(&self) -> Result<DeviceState> {
        const SQL: &str =
            "SELECT incarnation, last_operation, low_water, cursor, resetting, retained_dropped, followed
            FROM device WHERE id = 1";
        let mut statement = self.connection.prepare_cached(SQL)?;
        let mut rows = statement.query([])?;
        let row = rows.next()?.ok_or(DecodeError::Invalid("device state is missing"))?;
        let cursor = row.get_ref(3)?.as_blob_or_null()?;
        Ok(DeviceState {
            incarnation: Incarnation(row.get::<_, i64>(0)? as u64),
            last_operation: OperationNumber(row.get::<_, i64>(1)? as u64),
            low_water: OperationNumber(row.get::<_, i64>(2)? as u64),
            cursor: cursor.map(Cursor::decode).transpose()?,
            resetting: row.get(4)?,
            retained_dropped: row.get::<_, i64>(5)? as u64,
            followed: row.get::<_, i64>(6)? as u64,
        })
    }

    /// The group, if the device belongs to one.
    ///
    /// # Errors
    /// The database's.
    pub fn membership(&self) -> Result<Option<Membership>> {
        const SQL: &str = "SELECT group_id, group_name, root_key FROM membership WHERE id = 1";
        let membership = self.connection.prepare_cached(SQL)?.query_row([], |row| {
            Ok(Membership {
                group: GroupId(row.get(0)?),
                group_name: row.get(1)?,
                root_key: PublicKey(row.get(2)?),
            })
        });
        Ok(membership.optional()?)
    }

    /// The lineage as far as known, oldest first.
    ///
    /// # Errors
    /// The database's, or a damaged record.
    pub fn lineage(&self) -> Result<Vec<Signed<Promotion>>> {
        roster::lineage(self.connection)
    }

    /// Known issuing certificates.
    ///
    /// # Errors
    /// The database's, or a damaged record.
    pub fn issuers(&self) -> Result<Vec<Signed<IssuingCertificate>>> {
        roster::issuers(self.connection)
    }

    /// Known membership rows.
    ///
    /// # Errors
    /// The database's, or a damaged record.
    pub fn members(&self) -> Result<Vec<Signed<Member>>> {
        roster::members(self.connection)
    }
}

impl LocalWrite<'_> {
    /// Gives a new file its incarnation, and keeps the one it has; notes whose file it is.
    ///
    /// # Errors
    /// The database's.
    pub fn initialise(&self, incarnation: Incarnation, device: DeviceId) -> Result<()> {
        self.connection.execute(
            "INSERT INTO device (id, own_id, incarnation, last_operation, low_water, generation, resetting)
                VALUES (1, ?2, ?1, 0, 0, 0, 0) ON CONFLICT (id) DO UPDATE SET own_id = ?2",
            params![incarnation.0 as i64, device.to_string()],
        )?;
        Ok(())
    }

    pub(super) fn set_cursor(&self, cursor: Option<&Cursor>) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE device SET cursor = ? WHERE id = 1")?
            .execute([cursor.map(Cursor::encode)])?;
        Ok(())
    }

    /// Notes the number of the reign that is followed from now on.
    ///
    /// # Errors
    /// The database's.
    pub fn follow_reign(&self, number: u64) -> Result<()> {
        self.connection.execute("UPDATE device SET followed = ? WHERE id = 1", [number as i64])?;
        Ok(())
    }

    /// Notes the whole history of the server that is followed, oldest first, in the place of the one known.
    ///
    /// # Errors
    /// The database's.
    pub fn adopt_lineage(&self, promotions: &[Signed<Promotion>]) -> Result<()> {
        self.connection.execute("DELETE FROM lineage", [])?;
        promotions.iter().try_for_each(|record| roster::put_promotion(self.connection, record))
    }

    /// Notes records about the group that were verified before.
    ///
    /// # Errors
    /// The database's.
    pub fn adopt_roster(
        &self,
        promotions: &[Signed<Promotion>],
        issuers: &[Signed<IssuingCertificate>],
        members: &[Signed<Member>],
    ) -> Result<()> {
        promotions.iter().try_for_each(|record| roster::put_promotion(self.connection, record))?;
        issuers.iter().try_for_each(|record| roster::put_issuer(self.connection, record))?;
        members.iter().try_for_each(|record| roster::put_member(self.connection, record))
    }

    /// Leaves the group, also in the midst of joining: what readers see becomes the device's own, also
    /// where it had items for itself. Edits that never reached the server stay part of it; their count is
    /// returned. What the group had is remembered beside it ([`LocalRead::unsent`]). Operations set aside
    /// stay for a person. Marks of erased users and the sharing of kinds are the group's and do not.
    ///
    /// # Errors
    /// The database's.
    pub fn leave(&self) -> Result<u64> {
        let unsent = self.waiting()?.operations;
        if self.is_joining()? {
            self.connection.execute("DELETE FROM items WHERE local_deleted IS NULL", [])?;
        } else {
            self.note_parting()?;
        }
        // Before the items: edits may wait on one that is hidden.
        self.connection.execute_batch("DELETE FROM outbox_items; DELETE FROM outbox")?;
        self.connection.execute(&format!("DELETE FROM items WHERE NOT coalesce({SHOWN}, 0)"), [])?;
        self.connection.execute_batch(
            "DELETE FROM retained;
             DELETE FROM membership; DELETE FROM lineage; DELETE FROM issuers; DELETE FROM members;
             DELETE FROM items WHERE coalesce(local_deleted, mirror_deleted) = 1;
             DELETE FROM items WHERE kind IN ('group.erased', 'group.sharing');
             UPDATE items SET device = '', local_fields = coalesce(local_fields, mirror_fields), local_deleted = 0,
                 mirror_sequence = NULL, mirror_deleted = NULL, mirror_fields = NULL, generation = 0,
                 settled_at = NULL, settled_by = NULL;
             UPDATE device SET cursor = NULL, resetting = 0, generation = 0, followed = 0, waiting = 0,
                 waiting_bytes = 0, retained = 0, retained_bytes = 0 WHERE id = 1;",
        )?;
        Ok(unsent)
    }
}
