//! A machine that may serve: its disk, its role, and the server and replica parts that run on it.
//!
//! Disk and role are the product's own: the control file, the master database and the standby copy as
//! files. What starts and stops the parts does what the daemon's supervisor and its parts do. A machine
//! is the device of the same number as well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use mfpsync_daemon::control_file::{ControlFile, Way};
use mfpsync_daemon::role::{Part, Role};
use mfpsync_proto::sync;
use mfpsync_replication::accept::Usage;
use mfpsync_replication::lineage::{Lineage, Relation};
use mfpsync_replication::message::Claim;
use mfpsync_replication::wire;
use mfpsync_storage::Followed;
use mfpsync_storage::master::{Founding, Head, Master, MasterRead, MasterWrite, Reign, Replication};
use mfpsync_storage::model::{
    Capabilities, Cursor, DeviceId, Epoch, GroupId, IssuingCertificate, Member, Parent, Promotion,
    PromotionReason, PublicKey, Sequence, Signed,
};
use mfpsync_storage::physical::{Position, Standby};
use rand::RngExt;

use super::copy::Copying;
use super::feeding::Feeding;
use super::reigns::Line;
use super::server::{Stream, Waiting};
use super::swarm::SECOND;
use super::world::{Event, World};

pub(super) const GROUP: GroupId = GroupId([7; 16]);
pub(super) const ROOT: PublicKey = PublicKey([9; 32]);
/// Every change may be shown.
pub(super) const EVERYTHING: Sequence = Sequence(u64::MAX);

pub(super) struct House {
    pub directory: PathBuf,
    pub control: ControlFile,
    pub serving: Option<Serving>,
    pub copying: Option<Copying>,
    /// Rises whenever a part starts or ends.
    pub boot: u64,
    /// Switched off, or on its way up again.
    pub off: bool,
    /// What the master database on its disk should hold.
    pub line: Rc<Line>,
    /// Its copy is an earlier image of itself: it may lack what it confirmed.
    pub copy_put_back: bool,
    /// A bit of its copy changed.
    pub rotten: bool,
    /// Who is behind this reads everything anew, whatever was collected.
    pub floor: Sequence,
    pub full_until: u64,
    pub clock_error: i64,
}

/// A running server part.
pub(super) struct Serving {
    pub master: Followed<Master, u64>,
    pub streams: BTreeMap<u64, Stream>,
    pub hub: Hub,
    pub usage: Arc<Mutex<Usage>>,
    pub set: Option<Replication>,
    pub feeding: Arc<Mutex<Feeding>>,
    /// The replica's stream.
    pub ship: Option<u64>,
    /// Calls that wait for the replica, by ticket.
    pub waiting: BTreeMap<u64, Waiting>,
    pub tickets: u64,
    /// Whoever said hello since it started.
    pub introduced: BTreeSet<usize>,
    /// Stands down since then, and who asked.
    pub standing_down: Option<(u64, Option<u64>)>,
    /// Another device reigns.
    pub sealed: bool,
    /// Others claim this reign, and nobody has decided yet.
    pub rivals: Vec<Signed<Promotion>>,
    /// Numbers questions to the replica.
    pub proofs: u64,
}

/// A commit as it goes out to all followers.
pub(super) struct Live {
    pub previous: Sequence,
    pub event: sync::FollowEvent,
    pub cursor: Cursor,
}

/// What was committed and what of it may be shown, as the daemon's hub.
pub(super) struct Hub {
    /// Up to where changes were read.
    pub through: Sequence,
    /// Read and not confirmed, the head after each commit with it.
    pub held: VecDeque<(Vec<Rc<Live>>, Head)>,
    /// As of the last commit that may be shown.
    pub head: Head,
    pub confirmed: Sequence,
    pub safe: Option<Sequence>,
}

/// A record with a signature in form only.
pub(super) fn signed<T>(record: T, body: Vec<u8>) -> Signed<T> {
    Signed { record, body, signature: [0; 64] }
}

pub(super) fn device_id(device: usize) -> DeviceId {
    DeviceId([device as u8 + 1; 16])
}

pub(super) fn endpoint(device: usize) -> String {
    format!("host-{device}:7450")
}

pub(super) fn house_at(endpoint: &str) -> usize {
    let number = endpoint.trim_start_matches("host-").trim_end_matches(":7450");
    number.parse().expect("an address of a machine")
}

pub(super) fn issuing_key(device: usize) -> PublicKey {
    PublicKey([100 + device as u8; 32])
}

pub(super) fn certificate(device: usize) -> Signed<IssuingCertificate> {
    let issuer =
        IssuingCertificate { group: GROUP, device: device_id(device), public_key: issuing_key(device) };
    let body = issuer.body();
    signed(issuer, body)
}

pub(super) fn member(
    house: usize,
    device: usize,
    capabilities: Capabilities,
    version: u64,
) -> Signed<Member> {
    let member = Member {
        group: GROUP,
        device: device_id(device),
        public_key: PublicKey([device as u8 + 1; 32]),
        name: format!("printer {device}"),
        capabilities,
        released: false,
        version,
        endpoints: Vec::new(),
        issuer: device_id(house),
    };
    resigned(member)
}

pub(super) fn resigned(member: Member) -> Signed<Member> {
    let body = member.body();
    signed(member, body)
}

fn promoted(promotion: Promotion) -> Signed<Promotion> {
    let body = promotion.body();
    signed(promotion, body)
}

impl House {
    pub(super) fn new(directory: PathBuf, line: Rc<Line>) -> Self {
        std::fs::create_dir_all(&directory).expect("a directory");
        Self {
            control: ControlFile::load(&directory).expect("a control file"),
            directory,
            serving: None,
            copying: None,
            boot: 0,
            off: false,
            line,
            copy_put_back: false,
            rotten: false,
            floor: Sequence::ZERO,
            full_until: 0,
            clock_error: 0,
        }
    }

    pub(super) fn master_path(&self) -> PathBuf {
        self.directory.join("master.db")
    }

    pub(super) fn standby_path(&self) -> PathBuf {
        self.directory.join("standby")
    }

    pub(super) fn runs(&self, part: Part) -> bool {
        self.control.current().wanted.parts().contains(part)
    }

    pub(super) fn line(&mut self) -> &mut Line {
        Rc::make_mut(&mut self.line)
    }

    pub(super) fn serving(&self) -> &Serving {
        self.serving.as_ref().expect("a server")
    }

    pub(super) fn server(&mut self) -> &mut Serving {
        self.serving.as_mut().expect("a server")
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&MasterRead<'_>) -> mfpsync_storage::Result<T>) -> T {
        self.serving().master.read(read).expect("read the master")
    }

    /// Where the master stands, whether that may be shown or not.
    pub(super) fn head(&self) -> Head {
        let mut head = self.read(|read| read.founded_head());
        head.tombstone_floor = head.tombstone_floor.max(self.floor);
        head
    }

    pub(super) fn membership(&self) -> sync::FollowEvent {
        self.read(|read| Ok(wire::membership_to_wire(&read.members()?, &read.issuers()?)))
    }

    pub(super) fn member(&self, device: usize) -> Option<Member> {
        let members = self.read(|read| read.members());
        members.into_iter().map(|signed| signed.record).find(|member| member.device == device_id(device))
    }

    /// Its reign is the highest it knows of.
    pub(super) fn epoch_seen(&self) -> u64 {
        self.control.current().epoch.map_or(0, |epoch| epoch.number)
    }
}

impl Hub {
    fn new(head: Head) -> Self {
        Self { through: head.sequence, held: VecDeque::new(), head, confirmed: EVERYTHING, safe: None }
    }
}

impl World {
    /// A group is founded at the first machine.
    pub(super) fn found(&mut self) {
        let epoch = Epoch { number: 1, nonce: self.rng.random() };
        let promotion = Promotion {
            group: GROUP,
            epoch,
            parent: None,
            ends: Vec::new(),
            device: device_id(0),
            operator: "operator".to_owned(),
            reason: PromotionReason::Founded,
            made_at: 0,
        };
        let capabilities = Capabilities::CLIENT.with(Capabilities::SERVE).with(Capabilities::ADMINISTER);
        let mut founder = member(0, 0, capabilities, 1).record;
        founder.endpoints = vec![endpoint(0)];
        let founding = Founding {
            group_name: "fleet".to_owned(),
            root_key: ROOT,
            promotion: promoted(promotion),
            issuer: certificate(0),
            member: resigned(founder),
        };
        let house = &mut self.houses[0];
        let mut master =
            Followed::<Master, u64>::open(&house.master_path(), true).expect("a master database");
        master.write(Vec::new(), |write| write.found(&founding)).expect("found a group");
        master.close().expect("close the master database");
        house.line().epoch = epoch.number;
        house.control.enter_group(GROUP, epoch).expect("a group");
        house.control.set_wanted(Role::ServerClient).expect("a role");
        self.start_parts(0);
    }

    /// The parts that the machine's role wants come up.
    pub(super) fn start_parts(&mut self, house: usize) {
        if self.houses[house].off {
            return;
        }
        if self.houses[house].runs(Part::Server) {
            self.stop_copy(house);
            self.start_server(house);
        } else {
            self.stop_server(house);
            if self.houses[house].runs(Part::Replica) {
                self.start_copy(house);
            } else {
                self.stop_copy(house);
            }
        }
    }

    /// The server part comes up, unless it hears that another device reigns.
    fn start_server(&mut self, house: usize) {
        let begins = self.houses[house].control.current().takeover.is_some();
        if self.houses[house].serving.is_some() || !self.finish_takeover(house) {
            return;
        }
        let own = &mut self.houses[house];
        own.boot += 1;
        let master = Followed::<Master, u64>::open(&own.master_path(), false).expect("a master database");
        let head = master.read(|read| read.founded_head()).expect("a head");
        let set = master.read(|read| read.replication()).expect("a replica");
        if own.control.see_epoch(head.epoch).is_err() {
            self.note(format_args!(
                "machine {house} has seen a higher reign than its own and does not serve"
            ));
            return;
        }
        let seed = self.rng.random();
        own_serving(&mut self.houses[house], master, head, seed);
        self.counters.sometimes("server part started");
        self.note(format_args!("machine {house} serves"));
        if !begins && !self.ask_others(house) {
            return;
        }
        self.set_replica_there(house, set, false);
        self.advertise(house);
        let boot = self.houses[house].boot;
        self.schedule(SECOND, Event::Watch { house, boot });
    }

    /// Makes the machine's own address known, as the daemon does at each start.
    fn advertise(&mut self, house: usize) {
        let row = self.houses[house].member(house);
        if let Some(row) = row.filter(|row| row.endpoints.is_empty()) {
            let row = Member { endpoints: vec![endpoint(house)], version: row.version + 1, ..row };
            self.put_row(house, row);
        }
    }

    /// A row of the membership counts at once, and all hear of it.
    pub(super) fn put_row(&mut self, house: usize, row: Member) {
        let row = resigned(Member { issuer: device_id(house), ..row });
        self.commit(house, Vec::new(), |write| write.put_member(&row));
        self.publish_membership(house);
        self.committed(house);
    }

    /// Runs one transaction of a master.
    pub(super) fn commit<T>(
        &mut self,
        house: usize,
        waits: Vec<u64>,
        write: impl FnOnce(&MasterWrite<'_>) -> mfpsync_storage::Result<T>,
    ) -> T {
        let now = self.now;
        let serving = self.houses[house].server();
        serving.feeding.lock().expect("state").now = std::time::Duration::from_micros(now);
        serving.master.write(waits, write).expect("write the master")
    }

    /// The server part ends as it should.
    pub(super) fn stop_server(&mut self, house: usize) {
        let Some(serving) = self.houses[house].serving.take() else { return };
        self.houses[house].boot += 1;
        self.note(format_args!("machine {house} stops serving"));
        self.break_all_to(house, "the server stops");
        serving.master.close().expect("close the master database");
    }

    /// The machine loses its power: all its parts end at once, and it comes back some time later.
    pub(super) fn power_cut(&mut self, house: usize, lasts: u64) {
        self.note(format_args!("machine {house} loses power for {} s", lasts / SECOND));
        let own = &mut self.houses[house];
        own.boot += 1;
        own.off = true;
        // Dropped, not closed: what was not folded stays in the logs.
        (own.serving, own.copying) = (None, None);
        let boot = own.boot;
        self.break_all_to(house, "power cut");
        self.break_all(house, "power cut");
        self.stop_round(house);
        self.schedule(lasts, Event::PowerUp { house, boot });
    }

    pub(super) fn power_up(&mut self, house: usize) {
        if !std::mem::take(&mut self.houses[house].off) {
            return;
        }
        self.note(format_args!("machine {house} is on"));
        self.start_parts(house);
        self.start_round(house);
    }

    pub(super) fn break_all_to(&mut self, house: usize, why: &str) {
        let theirs = self.network.connections.iter().filter(|(_, known)| known.house == house);
        let theirs: Vec<u64> = theirs.map(|(connection, _)| *connection).collect();
        theirs.into_iter().for_each(|connection| self.break_connection(connection, why));
    }

    /// Whether a word from one machine reaches another one now.
    fn reaches(&mut self, house: usize, other: usize) -> bool {
        self.network.held_until(house, other, false) <= self.now
            && self.network.held_until(house, other, true) <= self.now
            && self.rng.random_bool(0.9)
    }

    /// A server asks the machines that could have taken over; whoever does not answer at once does not answer.
    /// False if one reigns.
    pub(super) fn ask_others(&mut self, house: usize) -> bool {
        let (lineage, issuers, members) =
            self.houses[house].read(|read| Ok((read.lineage()?, read.issuers()?, read.members()?)));
        let (ours, last) = (records(&lineage), lineage.last().expect("a reign").clone());
        let claim = Claim::of(last, &issuers, &members);
        for other in (0..self.houses.len()).filter(|other| *other != house) {
            let serves = members.iter().any(|signed| may_serve(&signed.record, other));
            let reached = self.reaches(house, other);
            if !serves
                || !reached
                || self.houses[other].serving.is_none()
                || self.authorise(other, house).is_err()
            {
                continue;
            }
            let (theirs, answer) = match self.check_claim(other, &claim) {
                Ok(()) => {
                    let (lineage, issuers, members) = self.houses[other]
                        .read(|read| Ok((read.lineage()?, read.issuers()?, read.members()?)));
                    let Some(last) = lineage.last().cloned() else { continue };
                    (Some(records(&lineage)), Claim::of(last, &issuers, &members))
                }
                Err((_, Some(answer))) => (None, *answer),
                Err((_, None)) => continue,
            };
            let epoch = answer.promotion.record.epoch;
            let superseded = match theirs.map(|theirs| ours.relation(&theirs)) {
                Some(Relation::Extended { .. } | Relation::Replaced { .. }) => true,
                Some(Relation::Forked { .. } | Relation::Same | Relation::Behind | Relation::Unrelated) => {
                    false
                }
                None => epoch.number > ours.highest().epoch.number,
            };
            if superseded {
                self.counters.sometimes("server hears from another machine that it reigns no more");
                self.seal(house, &answer);
                self.follow_role(house);
                return false;
            }
            if ours.is_contested_by(&epoch) {
                self.contest(house, &answer.promotion);
            }
        }
        true
    }

    /// Another device claims the same reign: nothing is taken until somebody decides.
    pub(super) fn contest(&mut self, house: usize, rival: &Signed<Promotion>) {
        let rivals = &mut self.houses[house].server().rivals;
        if rivals.iter().all(|known| known.record.epoch != rival.record.epoch)
            && rivals.len() < Promotion::MAX_ENDS
        {
            rivals.push(rival.clone());
            self.counters.sometimes("two claim one reign");
            self.note(format_args!("machine {house} hears that its reign is claimed by another"));
        }
    }

    /// A machine that may serve and does not tells the others who reigns.
    pub(super) fn tells(&mut self, house: usize) {
        let own = &self.houses[house];
        let (lineage, issuers, members) =
            self.devices[house].read(|read| Ok((read.lineage()?, read.issuers()?, read.members()?)));
        let Some(last) = lineage.last().cloned().filter(|_| !own.off && own.serving.is_none()) else {
            return;
        };
        if !members.iter().any(|signed| may_serve(&signed.record, house)) {
            return;
        }
        let reigns = last.record.device;
        let claim = Claim::of(last, &issuers, &members);
        for other in (0..self.houses.len()).filter(|other| *other != house && device_id(*other) != reigns) {
            let serves = members.iter().any(|signed| may_serve(&signed.record, other));
            if serves
                && self.reaches(house, other)
                && self.houses[other].serving.is_some()
                && self.authorise(other, house).is_ok()
                && self.check_claim(other, &claim).is_err()
            {
                self.counters.sometimes("server is told who reigns");
            }
        }
    }

    /// What a machine that could serve and does not answers at its port: who does.
    pub(super) fn directions(&self, house: usize) -> Option<Claim> {
        let own = &self.houses[house];
        let (lineage, issuers, members) =
            self.devices[house].read(|read| Ok((read.lineage()?, read.issuers()?, read.members()?)));
        let stands = !own.off && !own.runs(Part::Server);
        let may = members.iter().any(|signed| may_serve(&signed.record, house));
        let last = lineage.last().filter(|last| stands && may && last.record.device != device_id(house))?;
        Some(Claim::of(last.clone(), &issuers, &members))
    }

    /// An operator has this server stay where two claim the reign.
    pub(super) fn stays(&mut self, house: usize) {
        let rivals = std::mem::take(&mut self.houses[house].server().rivals);
        let Some(highest) = rivals.iter().map(|rival| rival.record.epoch.number).max() else { return };
        let (head, row) = (self.houses[house].head(), self.houses[house].member(house).expect("its row"));
        let epoch = Epoch { number: head.epoch.number.max(highest) + 1, nonce: self.rng.random() };
        let promotion = promoted(Promotion {
            group: GROUP,
            epoch,
            parent: Some(Parent {
                epoch: head.epoch,
                sequence: head.sequence,
                chain: head.chain,
                transaction: 0,
                page_digest: [0; 16],
            }),
            ends: rivals.iter().map(|rival| rival.record.epoch).collect(),
            device: device_id(house),
            operator: "panel".to_owned(),
            reason: PromotionReason::Chosen,
            made_at: self.wall_clock(self.houses[house].clock_error),
        });
        let (issuer, known) = (certificate(house), head.sequence);
        let member = resigned(Member { version: row.version + 1, ..row });
        self.commit(house, Vec::new(), |write| {
            let replication = write.replication()?;
            write.begin_reign(&Reign { promotion: promotion.clone(), issuer, member, known })?;
            write.set_replication(replication.as_ref())
        });
        self.houses[house].control.see_epoch(epoch).expect("an epoch above all");
        let line = self.houses[house].line();
        line.ends.insert(line.epoch, head.sequence.0);
        line.epoch = epoch.number;
        line.model.offered.clear();
        self.note(format_args!("machine {house} stays, epoch {}", epoch.number));
        self.counters.sometimes("operator chose between two reigns");
        self.end_streams(house);
        self.committed(house);
    }

    /// Ends the machine's reign by the record of its successor.
    pub(super) fn seal(&mut self, house: usize, successor: &Claim) {
        let epoch = successor.promotion.record.epoch;
        if self.houses[house].control.seal(epoch).is_err() {
            assert!(self.houses[house].serving().sealed, "an epoch above its own");
            // Two follow this reign, and the other one was heard of first.
            return self.counters.sometimes("sealed server shown another successor");
        }
        self.note(format_args!("machine {house} is sealed by epoch {}", epoch.number));
        self.counters.sometimes("superseded server sealed");
        self.houses[house].server().sealed = true;
        self.adopt_claim(house, successor);
    }

    /// The role follows what the control file says by now.
    pub(super) fn follow_role(&mut self, house: usize) {
        self.start_parts(house);
        let endpoints = self.endpoints(house);
        self.dial_these(house, endpoints);
    }

    /// What the operator decided at the replica becomes true, in steps that outlast a power cut. False if
    /// the power failed in between, or there is nothing to take over with.
    fn finish_takeover(&mut self, house: usize) -> bool {
        let Some(takeover) = self.houses[house].control.current().takeover else { return true };
        let promotion = if takeover.record.is_empty() {
            let Some(promotion) = self.decide_takeover(house, takeover.way) else { return false };
            promotion
        } else {
            Promotion::decode(&takeover.record).expect("a record").record
        };
        if self.falls_in_takeover(house) {
            return false;
        }
        place(&self.houses[house]);
        if self.falls_in_takeover(house) {
            return false;
        }
        let own = &self.houses[house];
        let mut master = Followed::<Master, u64>::open(&own.master_path(), false).expect("the copy");
        let epoch = promotion.epoch;
        let begun = master.write(Vec::new(), |write| {
            if write.founded_head()?.epoch == epoch {
                return Ok(());
            }
            let rows = write.members()?;
            let known =
                rows.into_iter().map(|signed| signed.record).find(|row| row.device == device_id(house));
            let capabilities = Capabilities::CLIENT.with(Capabilities::SERVE).with(Capabilities::ADMINISTER);
            let mut row =
                member(house, house, capabilities, known.as_ref().map_or(1, |row| row.version + 1)).record;
            row.endpoints = known.map_or_else(Vec::new, |row| row.endpoints);
            write.begin_reign(&Reign {
                promotion: promoted(promotion.clone()),
                issuer: certificate(house),
                member: resigned(row),
                known: takeover.known,
            })
        });
        begun.expect("begin a reign");
        drop(master);
        if self.falls_in_takeover(house) {
            return false;
        }
        self.houses[house].control.end_takeover().expect("the end of a takeover");
        self.note(format_args!("machine {house} reigns, epoch {}", epoch.number));
        self.counters.sometimes("replica took over");
        true
    }

    fn falls_in_takeover(&mut self, house: usize) -> bool {
        let falls = !self.healed && self.chance(self.swarm.crash_commit);
        if falls {
            self.counters.sometimes("power cut in a takeover");
            let lasts = self.rng.random_range(0..20 * SECOND);
            self.power_cut(house, lasts);
        }
        falls
    }

    /// The one moment that counts: the copy's position goes into a record, and that into the control file.
    fn decide_takeover(&mut self, house: usize, way: Way) -> Option<Promotion> {
        let own = &self.houses[house];
        let mut copy = Standby::open(&own.standby_path()).expect("the copy");
        let whole = copy.verify(&|| false).expect("read the copy");
        let position = copy.position().filter(|_| whole)?;
        copy.close().expect("close the copy");
        if own.epoch_seen() > position.epoch.number {
            self.note(format_args!("the copy of machine {house} is of an earlier reign"));
            return None;
        }
        let promotion = self.record_of(house, &position, way);
        self.check_takeover(house, &position, promotion.epoch);
        let encoded = promoted(promotion.clone()).encode();
        self.houses[house].control.decide_takeover(promotion.epoch, &encoded).expect("decide a takeover");
        Some(promotion)
    }

    fn record_of(&mut self, house: usize, position: &Position, way: Way) -> Promotion {
        Promotion {
            group: position.group,
            epoch: Epoch { number: position.epoch.number + 1, nonce: self.rng.random() },
            parent: Some(Parent {
                epoch: position.epoch,
                sequence: position.sequence,
                chain: position.chain,
                transaction: position.transaction,
                page_digest: position.digest.to_bytes(),
            }),
            ends: Vec::new(),
            device: device_id(house),
            operator: "panel".to_owned(),
            reason: match way {
                Way::HandedOver { .. } => PromotionReason::Transferred,
                Way::Lost | Way::Anew | Way::Restored => PromotionReason::Promoted,
            },
            made_at: self.wall_clock(self.houses[house].clock_error),
        }
    }
}

/// Whether a row says that a machine may serve.
fn may_serve(row: &Member, house: usize) -> bool {
    row.device == device_id(house) && !row.released && row.capabilities.contains(Capabilities::SERVE)
}

fn own_serving(own: &mut House, master: Followed<Master, u64>, head: Head, seed: u64) {
    own.serving = Some(Serving {
        master,
        streams: BTreeMap::new(),
        hub: Hub::new(head),
        usage: Arc::default(),
        set: None,
        feeding: Arc::new(Mutex::new(Feeding::new(seed))),
        ship: None,
        waiting: BTreeMap::new(),
        tickets: 0,
        introduced: BTreeSet::new(),
        standing_down: None,
        sealed: false,
        rivals: Vec::new(),
        proofs: 0,
    });
}

/// The copy's file becomes the master database; what stood in the way is kept.
fn place(house: &House) {
    let (standby, path) = (house.standby_path(), house.master_path());
    if !Standby::is_whole(&standby).expect("look for a copy") {
        return;
    }
    if path.exists() {
        mfpsync_storage::retire(&path).expect("move a database aside");
    }
    Standby::open(&standby).and_then(|copy| copy.take_over(&path)).expect("move the copy");
}

/// A lineage that was stored as one.
pub(super) fn records(lineage: &[Signed<Promotion>]) -> Lineage {
    Lineage::new(GROUP, lineage.iter().map(|signed| signed.record.clone()).collect())
        .expect("a chain of reigns")
}

/// Where files are that nobody needs after the run: in memory, where there is such a place.
pub(super) fn somewhere() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory")
}
