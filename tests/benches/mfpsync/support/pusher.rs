//! An enrolled device reduced to what pushes: its identity, one connection, its operation numbers.
//! Talks to a daemon and to the echo server alike.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use mfpsync_daemon::enroll;
use mfpsync_daemon::identity::Identity;
use mfpsync_daemon::keystore::FileKeyStore;
use mfpsync_daemon::net::dial::dial;
use mfpsync_daemon::pairing::Code;
use mfpsync_daemon::tls::ClientTls;
use mfpsync_proto::PROTOCOL_VERSION;
use mfpsync_proto::panel::OpenPairingRequest;
use mfpsync_proto::sync::sync_client::SyncClient;
use mfpsync_proto::sync::{Cursor, Epoch, FollowEvent, FollowRequest, HelloRequest, PushReply, PushRequest};
use mfpsync_storage::model::{GroupId, Outcome, PublicKey};
use prost::bytes::Bytes;
use ring::rand::SystemRandom;
use tonic::Streaming;
use tonic::transport::Channel;

use super::device::Device;
use super::load::Call;
use super::workload::{Author, creation};

const DEADLINE: Duration = Duration::from_secs(30);
/// Items created by one operation, and operations in one push, while filling a database.
const FILL_EDITS: usize = 100;
const FILL_OPERATIONS: usize = 10;

/// A device of a group, not connected.
#[derive(Debug)]
pub(crate) struct Enrolled {
    identity: Identity,
    group: GroupId,
    server: PublicKey,
    address: String,
}

impl Enrolled {
    /// Makes an identity and pairs it with the server by a code of its panel, as any device does.
    ///
    /// # Errors
    /// Pairing failed.
    pub(crate) async fn new(server: &Device, keys: &Path, number: usize) -> Result<Self> {
        let name = format!("pusher-{number}");
        let store = FileKeyStore::open(keys.join(&name))?;
        let identity = Identity::load_or_create(&store, &SystemRandom::new())?;
        let code = server.panel().await?.open_pairing(OpenPairingRequest {}).await?.into_inner().code;
        let address = server.address().to_string();
        let joined = enroll::join(&address, &Code::parse(&code)?, &identity, &name, DEADLINE).await?;
        let rows = joined.members.iter().map(|signed| &signed.record);
        let key = rows.into_iter().find(|row| row.device == joined.server).map(|row| row.public_key);
        let server = key.context("the server's membership row")?;
        Ok(Self { identity, group: joined.anchor.group, server, address })
    }

    /// A connection that has said hello.
    ///
    /// # Errors
    /// The server is away or refuses.
    pub(crate) async fn connect(&self, number: usize) -> Result<Pusher> {
        let tls = ClientTls::sync(&self.identity, self.server)?;
        let incarnation = incarnation()?;
        let mut client = SyncClient::new(dial(&self.address, &tls, DEADLINE).await?);
        let group = Bytes::copy_from_slice(&self.group.0);
        let hello = HelloRequest {
            protocol_min: PROTOCOL_VERSION,
            protocol_max: PROTOCOL_VERSION,
            group_id: group.clone(),
            incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..HelloRequest::default()
        };
        let epoch = client.hello(hello).await?.into_inner().epoch.context("epoch in the hello")?;
        Ok(Pusher { client, group, epoch, incarnation, author: Author::new(number) })
    }
}

fn incarnation() -> Result<u64> {
    let random = ring::rand::generate::<[u8; 8]>(&SystemRandom::new());
    Ok(u64::from_be_bytes(random.map_err(|_| anyhow!("no random number"))?.expose()))
}

/// One connection that pushes one operation after the other.
#[derive(Debug)]
pub(crate) struct Pusher {
    client: SyncClient<Channel>,
    group: Bytes,
    epoch: Epoch,
    incarnation: u64,
    author: Author,
}

impl Pusher {
    /// To a server that checks no membership.
    ///
    /// # Errors
    /// It is away.
    pub(crate) async fn unenrolled(
        identity: &Identity,
        server: PublicKey,
        address: &str,
        number: usize,
    ) -> Result<Self> {
        let tls = ClientTls::sync(identity, server)?;
        let client = SyncClient::new(dial(address, &tls, DEADLINE).await?);
        let epoch = Epoch { number: 1, nonce: Bytes::from_static(&[7; 16]) };
        let group = Bytes::from_static(&[7; 16]);
        Ok(Self { client, group, epoch, incarnation: incarnation()?, author: Author::new(number) })
    }

    /// Sets one field of an item each time, once that is there.
    pub(crate) fn patching(self) -> Self {
        Self { author: self.author.patching(), ..self }
    }

    async fn push(&mut self, low_water: u64, operations: Vec<Bytes>) -> Result<PushReply> {
        let request = PushRequest {
            group_id: self.group.clone(),
            incarnation: self.incarnation,
            epoch: Some(self.epoch.clone()),
            low_water,
            operations,
        };
        Ok(self.client.push(request).await?.into_inner())
    }

    /// Follows from nothing, as a newcomer does.
    ///
    /// # Errors
    /// The server refuses.
    pub(crate) async fn follow(&mut self) -> Result<Streaming<FollowEvent>> {
        self.follow_from(None).await
    }

    /// Follows from where a cursor stands.
    ///
    /// # Errors
    /// The server refuses.
    pub(crate) async fn follow_from(&mut self, cursor: Option<Cursor>) -> Result<Streaming<FollowEvent>> {
        let (group_id, incarnation) = (self.group.clone(), self.incarnation);
        let request = FollowRequest { group_id, incarnation, cursor, settled: true };
        Ok(self.client.follow(request).await?.into_inner())
    }

    /// Creates `items` items on the server, in large operations. For a connection of its own that
    /// pushes nothing else.
    ///
    /// # Errors
    /// The server did not take them all.
    pub(crate) async fn fill(mut self, items: usize) -> Result<()> {
        let mut number = 0;
        for first in (0..items).step_by(FILL_EDITS * FILL_OPERATIONS) {
            let end = items.min(first + FILL_EDITS * FILL_OPERATIONS);
            let mut operations = Vec::with_capacity(FILL_OPERATIONS);
            let low_water = number;
            for from in (first..end).step_by(FILL_EDITS) {
                number += 1;
                operations.push(creation(number, from, end.min(from + FILL_EDITS))?.into());
            }
            let expected = operations.len();
            let reply = self.push(low_water, operations).await?;
            ensure!(reply.outcomes.len() == expected, "one outcome for each operation");
            for outcome in &reply.outcomes {
                ensure!(Outcome::decode(&outcome.record)?.revision().is_some(), "an item was refused");
            }
        }
        Ok(())
    }
}

impl Call for Pusher {
    async fn call(&mut self) -> Result<()> {
        let (number, record) = self.author.next()?;
        let reply = self.push(number - 1, vec![record.into()]).await?;
        let outcome = reply.outcomes.first().context("an outcome")?;
        ensure!(outcome.operation == number, "outcome of another operation");
        let revision = Outcome::decode(&outcome.record)?.revision().context("the operation was refused")?;
        self.author.accepted(revision);
        Ok(())
    }
}
