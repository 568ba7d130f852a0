//! The setting of one kind: whether all devices have one item, or each its own. A server-only item
//! that tells every device.
//!
//! The setting's key and fields. What a switch does is decided in `mfpsync_replication::sharing`.

use super::{DeviceId, Fields, ItemKey, Kind, Scope, Value};

/// The kind of the settings; an item's id is the kind it speaks of.
pub const SHARING_KIND: &str = "group.sharing";

const STATE: &str = "sharing";
const AT: &str = "at";
const SHARED: &str = "shared";
const DEVICE_SPECIFIC: &str = "device-specific";

/// Whether the devices of a group have the items of a kind together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// All devices have one item.
    #[default]
    Shared,
    /// Each device has its own, under its id.
    DeviceSpecific,
}

impl Sharing {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => SHARED,
            Self::DeviceSpecific => DEVICE_SPECIFIC,
        }
    }

    /// What it is switched from, or to.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Shared => Self::DeviceSpecific,
            Self::DeviceSpecific => Self::Shared,
        }
    }

    /// The fields of the setting's item; `at` is the server's wall clock, Unix milliseconds.
    ///
    /// **Source**: `docs/formats.md`, "Sharing".
    #[must_use]
    pub fn fields(self, at: u64) -> Fields {
        Fields::from_iter([
            (STATE, Value::Text(self.as_str().to_owned())),
            (AT, Value::Integer(i64::try_from(at).unwrap_or(i64::MAX))),
        ])
    }

    /// Reads a setting. What is not understood is shared, as is every kind without a setting.
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        match fields.get(STATE) {
            Some(Value::Text(state)) if state == DEVICE_SPECIFIC => Self::DeviceSpecific,
            Some(_) | None => Self::Shared,
        }
    }
}

/// Where the setting of a kind is.
#[must_use]
pub fn sharing_key(kind: &Kind) -> Option<ItemKey> {
    let setting = Kind::parse(SHARING_KIND).ok()?;
    Some(ItemKey {
        scope: Scope::shared(),
        kind: setting,
        device: String::new(),
        id: kind.as_str().to_owned(),
    })
}

impl ItemKey {
    /// The same item as all devices have it together.
    #[must_use]
    pub fn shared(&self) -> Self {
        Self { device: String::new(), ..self.clone() }
    }

    /// The same item as one device has it for itself.
    #[must_use]
    pub fn of_device(&self, device: DeviceId) -> Self {
        Self { device: device.to_string(), ..self.clone() }
    }

    /// Whether both name one item, perhaps of different devices.
    #[must_use]
    pub fn is_same_item(&self, other: &Self) -> bool {
        self.scope == other.scope && self.kind == other.kind && self.id == other.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_comes_back_as_it_was_made_and_doubt_means_shared() {
        for sharing in [Sharing::Shared, Sharing::DeviceSpecific] {
            assert_eq!(Sharing::of(&sharing.fields(1_000)), sharing);
        }
        assert_eq!(Sharing::of(&Fields::new()), Sharing::Shared);
        let newer = Fields::from_iter([(STATE, Value::Text("by-floor".to_owned()))]);
        assert_eq!(Sharing::of(&newer), Sharing::Shared);
    }

    #[test]
    fn any_kind_has_a_place_for_its_setting() {
        let kind = Kind::parse("vendor.x-finisher").unwrap();
        let key = sharing_key(&kind).unwrap();
        assert_eq!((key.scope, key.id.as_str()), (Scope::shared(), "vendor.x-finisher"));
    }
}
