//! Where the history is: at the running server, or a refusal that names it. And who acts there.

use std::sync::Arc;

use mfpsync_replication::operator::Operator;
use mfpsync_storage::model::{DeviceId, Scope};
use tonic::Status;

use crate::clock::unix_millis;
use crate::device::Device;
use crate::server::ServerPart;

const ACTOR_BYTES: usize = 255;
/// Who acts when nobody is named.
const OPERATOR: &str = "operator";

/// The running server, or where it is.
pub(super) fn server(device: &Device) -> Result<Arc<ServerPart>, Status> {
    device.server.load_full().ok_or_else(|| {
        let serving = device.group_server().filter(|member| member.device != device.identity.device());
        Status::failed_precondition(match serving {
            Some(member) => {
                format!("only the group's server has this; nothing was done here: do it at {}", member.name)
            }
            None => "only a running server has this; nothing was done: start the server first".to_owned(),
        })
    })
}

/// The person at the panel, as history shows it.
pub(crate) fn operator(device: &Device, actor: String) -> Result<Operator, Status> {
    if actor.len() > ACTOR_BYTES || actor.contains(char::is_control) {
        return Err(Status::invalid_argument("actor is longer than 255 bytes or holds control characters"));
    }
    let actor = if actor.is_empty() { OPERATOR.to_owned() } else { actor };
    let keep_values = device.settings.now().history_days > 0;
    Ok(Operator { server: device.identity.device(), actor, now: unix_millis(), keep_values })
}

/// The name of a device as people know it; empty when the group does not know it.
pub(super) fn device_name(device: &Device, id: DeviceId) -> String {
    device.roster.member(id).map_or_else(String::new, |member| member.name.clone())
}

/// A device's id as it was typed; none when empty.
pub(super) fn device_id(text: &str) -> Result<Option<DeviceId>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || Status::invalid_argument("a device's id is 32 hex digits; see the device list");
    DeviceId::from_hex(text).map(Some).ok_or_else(bad)
}

/// A user's scope.
pub(super) fn user(id: &str) -> Result<Scope, Status> {
    Scope::user(id).map_err(|error| Status::invalid_argument(format!("user: {error}")))
}
