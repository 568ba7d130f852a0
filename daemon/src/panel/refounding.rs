//! The group goes on although every device that could serve is lost, with its data: a client becomes the
//! server by the recovery kit, and every device offers what it has.

use mfpsync_proto::panel as wire;
use mfpsync_storage::Inline;
use mfpsync_storage::local::Membership;
use mfpsync_storage::master::{Founding, Master};
use mfpsync_storage::model::{
    Capabilities, Chain, Epoch, IssuingCertificate, Member, Parent, Promotion, PromotionReason, Sequence,
    Signed,
};
use ring::rand::SecureRandom;
use tonic::Status;

use super::founding::own_head;
use super::reign::OPERATOR;
use super::replication::opened;
use super::service::Session;
use crate::authority::{IssuingKey, Root};
use crate::client::Link;
use crate::clock::unix_millis;
use crate::communication::{Code, Event};
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::group::MASTER_FILE;
use crate::role::Role;
use crate::storage_fault;

/// Makes this client the server of its group, with an empty database. Answered when the decision is durable.
///
/// I-10: the database is there with its reign, or it is not; a call that was cut short is made again.
pub(super) async fn refound(
    session: &Session,
    request: wire::RefoundRequest,
) -> Result<wire::RoleReply, Status> {
    let device = &session.device;
    match session.wanted() {
        Role::Client => {}
        Role::Replica | Role::ReplicaClient => {
            return Err(Status::failed_precondition(
                "this device holds a copy of the group's data; nothing was changed: let it become the server with \
                 that (`mfpsync role promote --server-is-lost`)",
            ));
        }
        Role::Idle | Role::Server | Role::ServerClient => {
            return Err(Status::failed_precondition("this device is no client of a group"));
        }
    }
    if matches!(device.link.borrow().link, Link::Current | Link::CatchingUp) {
        return Err(Status::failed_precondition("the group's server answers; nothing was changed"));
    }
    let membership = device.membership().await.map_err(|error| storage_fault::refusal(&error))?;
    let membership = membership.ok_or_else(|| Status::failed_precondition("this device has no group"))?;
    let root = opened(request.recovery_kit, request.kit_passphrase).await?;
    if root.anchor() != crate::device::anchor(&membership) {
        return Err(Status::invalid_argument(
            "this is the recovery kit of another group; nothing was changed",
        ));
    }
    let epoch = match own_head(device).await? {
        // A call before this one came so far.
        Some(head) if head.group == membership.group && is_next(device, head.epoch) => head.epoch,
        Some(_) => {
            return Err(Status::failed_precondition(
                "this device holds the database of a server of before; nothing was changed: dismiss it first \
                 (`mfpsync role retire`)",
            ));
        }
        None => begin(device, &root, &membership).await?,
    };
    let seen = device.saw_epoch(membership.group, epoch).await;
    seen.map_err(|fault| Status::unavailable(fault.to_string()))?;
    device.communication.record(Event::new(Code::TookOver));
    session.switch(Role::ServerClient).await
}

/// Whether a reign is above all this device has seen.
fn is_next(device: &Device, epoch: Epoch) -> bool {
    device.control.current().epoch.is_none_or(|seen| epoch.number > seen.number)
}

/// Writes a database without data, whose reign follows the founding: nothing of what came since is in it.
async fn begin(device: &Device, root: &Root, membership: &Membership) -> Result<Epoch, Status> {
    let read =
        device.own.db().read(READ_DEADLINE, |read| Ok((read.lineage()?, read.issuers()?, read.members()?)));
    let (lineage, issuers, members) = read.await.map_err(|error| storage_fault::refusal(&error))?;
    let key = IssuingKey::load_or_create(&*device.keys, device.identity.device(), &*device.random)
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let mut nonce = [0; 16];
    let random: &dyn SecureRandom = &*device.random;
    random.fill(&mut nonce).map_err(|_| Status::internal("no random numbers"))?;
    let founded = lineage.first().cloned();
    let founded = founded.ok_or_else(|| Status::failed_precondition("this device never met its group"))?;
    let seen = device.control.current().epoch.map_or(0, |seen| seen.number);
    let highest = lineage.last().map_or(0, |last| last.record.epoch.number).max(seen);
    let own = members.iter().map(|signed| &signed.record).find(|row| row.device == key.device());
    let founding = Founding {
        group_name: membership.group_name.clone(),
        root_key: membership.root_key,
        promotion: key.sign_promotion(Promotion {
            group: membership.group,
            epoch: Epoch { number: highest + 1, nonce },
            parent: Some(Parent {
                epoch: founded.record.epoch,
                sequence: Sequence::ZERO,
                chain: Chain::START,
                transaction: 0,
                page_digest: [0; 16],
            }),
            ends: Vec::new(),
            device: key.device(),
            operator: OPERATOR.to_owned(),
            reason: PromotionReason::Recovered,
            made_at: unix_millis(),
        }),
        issuer: root.certify(key.device(), key.public_key()),
        member: key.sign_member(Member {
            group: membership.group,
            device: key.device(),
            public_key: device.identity.public_key(),
            name: device.config.name.clone(),
            capabilities: Capabilities::CLIENT.with(Capabilities::SERVE).with(Capabilities::ADMINISTER),
            released: false,
            version: own.map_or(1, |own| own.version + 1),
            endpoints: device.endpoints(&device.config.listen),
            issuer: key.device(),
        }),
    };
    let epoch = founding.promotion.record.epoch;
    let path = device.config.data_dir.join(MASTER_FILE);
    let written = tokio::task::spawn_blocking(move || {
        Inline::<Master>::open(&path, true)?.write(|write| {
            write.add_promotion(&founded)?;
            issuers.iter().try_for_each(|issuer: &Signed<IssuingCertificate>| write.put_issuer(issuer))?;
            members.iter().try_for_each(|member| write.put_member(member))?;
            write.found(&founding)
        })
    });
    let written = written.await.map_err(|_| Status::internal("writing the database was interrupted"))?;
    written.map_err(|error| storage_fault::refusal(&error))?;
    tracing::info!(epoch = epoch.number, "the group goes on here, with what its devices have");
    Ok(epoch)
}
