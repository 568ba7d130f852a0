//! Before it serves, a server asks the devices that could have taken over whether one of them has.
//!
//! Their silence proves nothing and keeps nobody waiting for long: who has seen a higher reign says so at
//! its next hello, and this server is sealed then.

use std::sync::Arc;
use std::time::Duration;

use mfpsync_proto::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use mfpsync_replication::lineage::{Lineage, Relation};
use mfpsync_replication::message::{Greeting, Hello};
use mfpsync_storage::master::Head;
use mfpsync_storage::model::{Capabilities, DeviceId, Member, Promotion, Signed};
use tokio::task::JoinSet;

use crate::authority::TrustAnchor;
use crate::client;
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::fault::{Fault, FaultCode};
use crate::storage_fault::start_fault;
use crate::tls::ClientTls;

/// How long the others may take: a switched off device costs a start that much.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks every other device that may serve; one that reigns over a later part of the same history seals this
/// server.
///
/// # Errors
/// The fault: superseded, or two reigns claim to follow the same one.
///
/// # Cancel safety
/// Safe.
pub async fn ask(device: &Arc<Device>, head: &Head, lineage: &[Signed<Promotion>]) -> Result<(), Fault> {
    let own = device.identity.device();
    let may_serve = |member: &Member| !member.released && member.capabilities.contains(Capabilities::SERVE);
    let others =
        device.roster.members().into_iter().filter(|member| member.device != own && may_serve(member));
    let anchor = TrustAnchor { group: head.group, root: head.root_key };
    let hello = hello(device, head, lineage).await?;
    let mut asked = JoinSet::new();
    for other in others {
        for endpoint in other.endpoints.clone() {
            let (device, other, hello) = (device.clone(), other.clone(), hello.clone());
            asked.spawn(async move {
                let answer =
                    tokio::time::timeout(PATIENCE, greet(&device, &other, &endpoint, anchor, &hello));
                Some((other.device, answer.await.ok()??))
            });
        }
    }
    let records = lineage.iter().map(|signed| signed.record.clone()).collect();
    let Ok(ours) = Lineage::new(head.group, records) else { return Ok(()) };
    while let Some(answer) = asked.join_next().await {
        let Ok(Some((other, greeting))) = answer else { continue };
        judge(device, &ours, other, &greeting).await?;
    }
    Ok(())
}

async fn hello(device: &Device, head: &Head, lineage: &[Signed<Promotion>]) -> Result<Hello, Fault> {
    let own = device.own.db().read(READ_DEADLINE, |read| read.device()).await;
    let own = own.map_err(|error| start_fault(&error))?;
    Ok(Hello {
        protocol_min: PROTOCOL_VERSION_MIN,
        protocol_max: PROTOCOL_VERSION,
        group: head.group,
        incarnation: own.incarnation,
        promotion: lineage.last().cloned(),
        last_operation: own.last_operation,
        endpoints: Vec::new(),
        issuing_key: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

async fn greet(
    device: &Device,
    other: &Member,
    endpoint: &str,
    anchor: TrustAnchor,
    hello: &Hello,
) -> Option<Greeting> {
    let tls = ClientTls::sync(&device.identity, other.public_key).ok()?;
    let channel = crate::net::dial::dial(endpoint, &tls, PATIENCE).await.ok()?;
    client::greet(channel, anchor, hello).await.ok()
}

async fn judge(device: &Device, ours: &Lineage, other: DeviceId, greeting: &Greeting) -> Result<(), Fault> {
    let records = greeting.lineage.iter().map(|signed| signed.record.clone()).collect();
    let Ok(theirs) = Lineage::new(ours.highest().group, records) else { return Ok(()) };
    match (ours.relation(&theirs), greeting.lineage.last()) {
        (Relation::Extended { .. } | Relation::Replaced { .. }, Some(successor)) => {
            device.reign.seal(successor).await?;
            Err(Fault::with_detail(FaultCode::Superseded, format_args!("by device {other}")))
        }
        (Relation::Forked { .. }, _) => {
            Err(Fault::with_detail(FaultCode::Forked, format_args!("the other one is device {other}")))
        }
        (
            Relation::Extended { .. }
            | Relation::Replaced { .. }
            | Relation::Same
            | Relation::Behind
            | Relation::Unrelated,
            _,
        ) => Ok(()),
    }
}
