//! The group's devices. Pure.

use mfpsync_proto::panel::{Device, DevicesReply};
use serde_json::{Value, json};

use super::units::{revision, revision_json, span};
use crate::output::printable;

/// Two lines a device: who and how it is, then what it is known by.
pub(crate) fn text(reply: &DevicesReply) -> String {
    if reply.devices.is_empty() {
        return "this device belongs to no group".to_owned();
    }
    reply.devices.iter().map(device_text).collect::<Vec<_>>().join("\n")
}

fn device_text(device: &Device) -> String {
    let mut state = vec![if device.released {
        "released".to_owned()
    } else if device.connected {
        "connected".to_owned()
    } else {
        "not connected".to_owned()
    }];
    state.extend(device.this_device.then(|| "this device".to_owned()));
    state.extend(device.position.as_ref().map(|at| format!("at {}", revision(at))));
    state.extend(device.last_heard_millis.map(|millis| format!("heard {} ago", span(millis))));
    let mut known = vec![device.id.clone()];
    known.extend(device.capabilities.iter().cloned());
    known.extend(device.endpoints.iter().cloned());
    format!("{}: {}\n    {}", printable(&device.name), state.join(", "), printable(&known.join("  ")))
}

/// The same for scripts.
pub(crate) fn json(reply: &DevicesReply) -> Value {
    let device = |device: &Device| {
        json!({
            "id": device.id,
            "name": device.name,
            "capabilities": device.capabilities,
            "released": device.released,
            "connected": device.connected,
            "endpoints": device.endpoints,
            "position": revision_json(device.position.as_ref()),
            "last_heard_millis": device.last_heard_millis,
            "this_device": device.this_device,
        })
    };
    json!({ "devices": reply.devices.iter().map(device).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_says_how_it_is_before_what_it_is() {
        let device = Device {
            id: "ff".repeat(16),
            name: "printer-2".to_owned(),
            capabilities: vec!["client".to_owned()],
            connected: true,
            endpoints: vec!["192.0.2.2:7401".to_owned()],
            last_heard_millis: Some(4_200),
            ..Device::default()
        };
        let text = text(&DevicesReply { devices: vec![device] });
        assert_eq!(
            text,
            format!("printer-2: connected, heard 4 s ago\n    {}  client  192.0.2.2:7401", "ff".repeat(16))
        );
    }

    #[test]
    fn no_devices_means_no_group() {
        assert_eq!(text(&DevicesReply::default()), "this device belongs to no group");
    }
}
