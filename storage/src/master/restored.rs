//! The beginning of a reign over data that was restored: what happened after the archive was made, and must
//! not come undone, is applied again in the same transaction. I-18, I-19.

use std::collections::{BTreeMap, BTreeSet};

use super::{Author, Head, ItemWrite, MasterRead, MasterWrite, OperatorAct, Reign};
use crate::codec::DecodeError;
use crate::error::{Error, Result};
use crate::model::{
    DeviceId, ERASED_KIND, ErasedMark, Fields, IssuingCertificate, ItemKey, Kind, Member, Parent,
    PromotionReason, Scope, Signed, erasure_key, limit,
};

/// What is known of the time after the archive, wherever from: the master that is replaced, this device's
/// own database, other devices. Signatures were verified.
#[derive(Debug, Clone, Default)]
pub struct Since {
    /// Certificates of issuing keys.
    pub issuers: Vec<Signed<IssuingCertificate>>,
    /// Rows of devices: enrolled, changed or released since. Older ones than the archive's do nothing.
    pub members: Vec<Signed<Member>>,
    /// Marks of users, by their ids: 64 hex digits, as [`MasterRead::erasures`] gives them.
    pub erasures: BTreeMap<String, ErasedMark>,
}

/// What was applied again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reapplied {
    /// Devices that the archive took for members, and that were released.
    pub releases: u64,
    /// Users whose mark the archive did not have, or had older.
    pub erasures: u64,
    /// Items that were deleted for it.
    pub items: u64,
}

impl Since {
    /// What a master knows that is to be replaced.
    ///
    /// # Errors
    /// The database's, or a damaged record.
    pub fn of(read: &MasterRead<'_>) -> Result<Self> {
        let erasures = read.erasures()?.into_iter().map(|(id, erasure)| (id, erasure.mark)).collect();
        Ok(Self { issuers: read.issuers()?, members: read.members()?, erasures })
    }

    /// What either knows: of two marks of a user the later one, of two rows of a device the one that counts.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.issuers.extend(other.issuers);
        self.members.extend(other.members);
        for (id, mark) in other.erasures {
            let known = self.erasures.entry(id).or_insert(mark);
            if known.generation < mark.generation {
                *known = mark;
            }
        }
        self
    }
}

impl Head {
    /// This place as the parent of a reign whose copy was not made page by page.
    #[must_use]
    pub fn parent(&self) -> Parent {
        let (transaction, page_digest) = (0, [0; 16]);
        Parent { epoch: self.epoch, sequence: self.sequence, chain: self.chain, transaction, page_digest }
    }
}

impl MasterWrite<'_> {
    /// Begins a reign over restored data. Its record says so: restored, from exactly where this database
    /// stands, with a number above its own and above all that its maker has heard of.
    ///
    /// A user who was erased since the archive is erased from it, also one who was admitted again after
    /// that: what the archive has is from before. `now` is the wall clock in Unix milliseconds, for people.
    ///
    /// # Errors
    /// The database's; a record of another place.
    pub fn begin_restored_reign(&self, reign: &Reign, since: &Since, now: u64) -> Result<Reapplied> {
        let head = self.founded_head()?;
        let record = &reign.promotion.record;
        let follows = record.group == head.group
            && record.parent.as_ref() == Some(&head.parent())
            && record.epoch.number > head.epoch.number
            && record.reason == PromotionReason::Restored;
        if !follows {
            return Err(Error::Record(DecodeError::Invalid("reign does not follow what was restored")));
        }
        let mut reapplied = Reapplied { releases: self.put_rows(since)?, ..Reapplied::default() };
        // Behind those: the certificate and row of the device that reigns are the ones that count.
        self.begin_reign(reign)?;
        let author = Author::operator(record.device, OperatorAct::Erase, record.operator.clone(), now);
        self.erase_again(&author, since, &mut reapplied)?;
        Ok(reapplied)
    }

    /// Adds the rows of since. How many devices are released by it.
    fn put_rows(&self, since: &Since) -> Result<u64> {
        let before = self.released()?;
        since.issuers.iter().try_for_each(|issuer| self.put_issuer(issuer))?;
        since.members.iter().try_for_each(|member| self.put_member(member))?;
        Ok(self.released()?.difference(&before).count() as u64)
    }

    fn released(&self) -> Result<BTreeSet<DeviceId>> {
        let released = self.members()?.into_iter().filter(|member| member.record.released);
        Ok(released.map(|member| member.record.device).collect())
    }

    fn erase_again(&self, author: &Author, since: &Since, reapplied: &mut Reapplied) -> Result<()> {
        let known: BTreeMap<String, ErasedMark> =
            self.erasures()?.into_iter().map(|(id, erasure)| (id, erasure.mark)).collect();
        let newer = |id: &String, mark: &ErasedMark| {
            known.get(id).is_none_or(|known| known.generation < mark.generation)
        };
        let due: BTreeMap<_, _> = since.erasures.iter().filter(|(id, mark)| newer(id, mark)).collect();
        if due.is_empty() {
            return Ok(());
        }
        let group = self.founded_head()?.group;
        for scope in self.users_named()? {
            let key = erasure_key(group, &scope).filter(|key| due.contains_key(&key.id));
            let Some(key) = key else { continue };
            reapplied.items += self.bury(author, &scope)?;
            let stand_in = Scope::user(&key.id).map_err(|_| DecodeError::Invalid("id of a mark"))?;
            self.wipe_history(&scope, &stand_in, scope.as_str().trim_start_matches("user/"))?;
        }
        let marks = due.into_iter().map(|(id, mark)| mark_item(id, mark)).collect::<Result<Vec<_>>>()?;
        reapplied.erasures = marks.len() as u64;
        self.accept_all(author, &marks)
    }

    /// Leaves a tombstone of each living item of a scope. How many there were.
    fn bury(&self, author: &Author, scope: &Scope) -> Result<u64> {
        let mut tombstones = Vec::new();
        for key in self.scope_items(scope)? {
            let Some(item) = self.item(&key)?.filter(|item| !item.deleted) else { continue };
            tombstones.push(ItemWrite {
                key,
                deleted: true,
                fields: Fields::new(),
                touched: item.fields.names().map(str::to_owned).collect(),
                sequences: None,
                lost: Fields::new(),
                keep_prior: false,
            });
        }
        self.accept_all(author, &tombstones)?;
        Ok(tombstones.len() as u64)
    }

    fn accept_all(&self, author: &Author, writes: &[ItemWrite]) -> Result<()> {
        writes.chunks(limit::OPERATION_EDITS).try_for_each(|writes| self.accept(author, writes).map(drop))
    }
}

impl MasterRead<'_> {
    /// Every user of whom a name stands anywhere: as the owner of an item, living or not, in the history, or
    /// as an actor.
    fn users_named(&self) -> Result<Vec<Scope>> {
        const SQL: &str = "SELECT scope FROM items WHERE scope > 'user/' AND scope < 'user0'
            UNION SELECT scope FROM changes WHERE scope > 'user/' AND scope < 'user0'
            UNION SELECT scope FROM superseded WHERE scope > 'user/' AND scope < 'user0'
            UNION SELECT 'user/' || actor FROM changes WHERE actor <> ''
            UNION SELECT 'user/' || actor FROM superseded WHERE actor <> ''";
        let mut statement = self.connection.prepare(SQL)?;
        let mut rows = statement.query([])?;
        let mut users = Vec::new();
        while let Some(row) = rows.next()? {
            // An actor may be what no user is called.
            users.extend(Scope::parse(row.get_ref(0)?.as_str()?).ok());
        }
        Ok(users)
    }
}

fn mark_item(id: &str, mark: &ErasedMark) -> Result<ItemWrite> {
    let invalid = |_| DecodeError::Invalid("id of a mark");
    let kind = Kind::parse(ERASED_KIND).map_err(invalid)?;
    let key = ItemKey::parse(Scope::shared().as_str(), kind.as_str(), "", id).map_err(invalid)?;
    let fields = mark.fields();
    let touched = fields.names().map(str::to_owned).collect();
    let (lost, sequences) = (Fields::new(), None);
    Ok(ItemWrite { key, deleted: false, fields, touched, sequences, lost, keep_prior: true })
}
