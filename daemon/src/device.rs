//! What lives as long as the daemon: identity, the device's own data, the membership it knows, and
//! the running server, if there is one. Shared by the parts and the sockets.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use mfpsync_storage::Error;
use mfpsync_storage::local::Membership;
use ring::rand::SecureRandom;
use tokio::sync::watch;

use crate::authority::TrustAnchor;
use crate::client::LinkReport;
use crate::config::Config;
use crate::db::READ_DEADLINE;
use crate::fault::FaultBoard;
use crate::identity::Identity;
use crate::keystore::KeyStore;
use crate::membership::Roster;
use crate::own_data::OwnData;
use crate::server::ServerPart;

/// This device.
pub struct Device {
    /// Its settings.
    pub config: Config,
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
    /// The running server.
    pub server: ArcSwapOption<ServerPart>,
    /// How the client part is doing.
    pub link: watch::Sender<LinkReport>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("id", &self.identity.device()).finish_non_exhaustive()
    }
}

impl Device {
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

    /// Fills the roster with what the device's own data knows of its group.
    ///
    /// # Errors
    /// The database's.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn load_roster(&self) -> Result<(), Error> {
        let members = self.own.db().read(READ_DEADLINE, |read| read.members()).await?;
        self.roster.update(members.into_iter().map(|signed| signed.record));
        Ok(())
    }
}

/// What a membership trusts.
#[must_use]
pub fn anchor(membership: &Membership) -> TrustAnchor {
    TrustAnchor { group: membership.group, root: membership.root_key }
}
