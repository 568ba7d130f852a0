//! What lives as long as the daemon: identity, the device's own data, the membership it knows, and
//! the running server, if there is one. Shared by the parts and the sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use mfpsync_replication::message::Claim;
use mfpsync_storage::Error;
use mfpsync_storage::local::{LocalWrite, Membership, RetainedLimits};
use mfpsync_storage::model::{DeviceId, Epoch, GroupId, Member};
use ring::rand::SecureRandom;
use tokio::sync::{Notify, watch};

use crate::app::Durable;
use crate::authority::TrustAnchor;
use crate::backup::Archiving;
use crate::client::LinkReport;
use crate::communication::CommunicationLog;
use crate::config::Config;
use crate::control_file::ControlFile;
use crate::db::READ_DEADLINE;
use crate::discovery::{Discovery, own_addresses};
use crate::fault::{Fault, FaultBoard, FaultCode};
use crate::identity::Identity;
use crate::keystore::KeyStore;
use crate::master_at_rest::MasterAtRest;
use crate::membership::Roster;
use crate::own_data::OwnData;
use crate::reign::Reign;
use crate::reign::signpost::Signpost;
use crate::replica::CopyReport;
use crate::server::ServerPart;
use crate::settings::Settings;
use crate::telemetry::Stats;

/// This device.
pub struct Device {
    /// What it was started with; for what may change meanwhile see `settings`.
    pub config: Config,
    /// The configuration in force.
    pub settings: Settings,
    /// What happened with other devices.
    pub communication: CommunicationLog,
    /// What is counted.
    pub stats: Arc<Stats>,
    /// Its id and key.
    pub identity: Arc<Identity>,
    /// Its other keys.
    pub keys: Arc<dyn KeyStore>,
    /// Its random numbers.
    pub random: Arc<dyn SecureRandom + Send + Sync>,
    /// Its own data.
    pub own: Arc<OwnData>,
    /// The membership it knows.
    pub roster: Arc<Roster>,
    /// What people should see to.
    pub faults: FaultBoard,
    /// Role, group and highest epoch, outside the databases.
    pub control: Arc<Durable>,
    /// Who reigns, as far as is known.
    pub reigning: ArcSwapOption<DeviceId>,
    /// Ends a reign of this device.
    pub reign: Arc<Reign>,
    /// The running server.
    pub server: ArcSwapOption<ServerPart>,
    /// How the client part is doing.
    pub link: watch::Sender<LinkReport>,
    /// How the replica part is doing.
    pub copy: watch::Sender<CopyReport>,
    /// The server part has started: the client part need not wait for its next attempt.
    pub serves: Notify,
    /// Says who serves while this device does not.
    pub signpost: Signpost,
    /// The server's operator hands over to this replica.
    pub invited: Notify,
    /// The master database that no server has.
    pub master_at_rest: MasterAtRest,
    /// Its archives, and the job with them.
    pub archiving: Archiving,
    /// Servers on its network, as they say.
    pub discovery: Discovery,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("id", &self.identity.device()).finish_non_exhaustive()
    }
}

impl Device {
    /// The addresses told to others, given those listened on.
    #[must_use]
    pub fn endpoints(&self, bound: &[SocketAddr]) -> Vec<String> {
        let everywhere = bound.iter().any(|address| address.ip().is_unspecified());
        let own = if everywhere { own_addresses(&self.config.discovery.interfaces) } else { Vec::new() };
        self.settings.now().advertised(bound, &own).iter().map(ToString::to_string).collect()
    }

    /// Draws what tells a reign from every other of its number.
    ///
    /// # Errors
    /// The fault: the system gives no random numbers.
    pub fn nonce(&self) -> Result<[u8; 16], Fault> {
        let mut nonce = [0; 16];
        let random: &dyn SecureRandom = &*self.random;
        random.fill(&mut nonce).map_err(|_| Fault::with_detail(FaultCode::Keys, "no random numbers"))?;
        Ok(nonce)
    }

    /// How much of what was accepted is kept until it is safe.
    #[must_use]
    pub fn retained_limits(&self) -> RetainedLimits {
        let limits = self.settings.now().limits;
        RetainedLimits { operations: limits.retained_operations, bytes: limits.retained_bytes }
    }

    /// Notes durably that the group is in this epoch. A lower one than was ever seen here means that
    /// what claims it is an old copy.
    ///
    /// # Errors
    /// The fault: superseded, or the control file cannot be written.
    ///
    /// # Cancel safety
    /// The note may be written although the future was dropped.
    pub async fn saw_epoch(&self, group: GroupId, epoch: Epoch) -> Result<(), Fault> {
        self.control.write(move |file| file.enter_group(group, epoch)).await
    }

    /// Notes durably that the device belongs to no group.
    ///
    /// # Errors
    /// The control file cannot be written.
    ///
    /// # Cancel safety
    /// As [`Device::saw_epoch`].
    pub async fn left_group(&self) -> Result<(), Fault> {
        self.control.write(ControlFile::leave_group).await
    }

    /// The group the device's own data belongs to.
    ///
    /// # Errors
    /// The database's.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn membership(&self) -> Result<Option<Membership>, Error> {
        self.own.db().read(READ_DEADLINE, |read| read.membership()).await
    }

    /// The row of the group's server, as far as one is known.
    #[must_use]
    pub fn group_server(&self) -> Option<Arc<Member>> {
        let reigning = self.reigning.load_full()?;
        self.roster.member(*reigning).filter(|member| !member.released)
    }

    /// Notes who reigns.
    pub fn saw_reign(&self, of: DeviceId) {
        self.reigning.store(Some(Arc::new(of)));
    }

    /// Who reigns, as far as is known.
    #[must_use]
    pub fn reigning(&self) -> Option<DeviceId> {
        self.reigning.load().as_deref().copied()
    }

    /// Notes the verified claim of a reign, with where its device is.
    ///
    /// # Errors
    /// The database's.
    ///
    /// # Cancel safety
    /// It may be noted although the future was dropped.
    pub async fn adopt_claim(&self, claim: &Claim) -> Result<(), Error> {
        let Claim { promotion, issuer, member } = claim.clone();
        let reigns = promotion.record.device;
        let row = member.as_ref().map(|member| member.record.clone());
        let write = move |db: &LocalWrite<'_>| {
            db.adopt_roster(std::slice::from_ref(&promotion), issuer.as_slice(), member.as_slice())?;
            Ok(((), Vec::new()))
        };
        self.own.write(write).await?;
        self.saw_reign(reigns);
        self.roster.update(row);
        Ok(())
    }

    /// Fills the roster with what the device's own data knows of its group.
    ///
    /// # Errors
    /// The database's.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn load_roster(&self) -> Result<(), Error> {
        let read = self.own.db().read(READ_DEADLINE, |read| Ok((read.members()?, read.lineage()?))).await;
        let (members, lineage) = read?;
        if let Some(last) = lineage.last() {
            self.saw_reign(last.record.device);
        }
        self.roster.update(members.into_iter().map(|signed| signed.record));
        Ok(())
    }
}

/// What a membership trusts.
#[must_use]
pub fn anchor(membership: &Membership) -> TrustAnchor {
    TrustAnchor { group: membership.group, root: membership.root_key }
}
