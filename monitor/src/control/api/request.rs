//! What a client asks to be changed, and the answers.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::amount::Amount;
use super::guest::Guest;
use crate::scheduler::Shares;
use crate::size::Size;

/// A change of a fleet's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetPatch {
    /// The size of the pool.
    pub pool: Amount,
}

/// A change of a guest's settings, all of them or none. What is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestPatch {
    /// The smallest size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Amount>,
    /// The largest size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Amount>,
    /// Its part of a pool that is too small for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<SharesSetting>,
    /// What it gets whenever it can use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Amount>,
}

/// A guest's target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetRequest {
    /// The target.
    pub target: TargetSetting,
}

/// A number of shares. It is read from a number or from `low`, `normal` or `high`, and written as
/// the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharesSetting(pub Shares);

/// Who sets a target. It is read from `auto` or an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSetting {
    /// The scheduler.
    Auto,
    /// A user, to this amount.
    Fixed(Amount),
}

/// The answer to a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// The version of the guest's or the fleet's settings now.
    pub version: u64,
}

/// The answer to a start, a stop, a kill or a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// Whether the guest has reached the state that was asked for. It is still on its way there
    /// otherwise.
    pub is_reached: bool,
    /// The guest.
    pub guest: Guest,
}

impl Serialize for SharesSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0.count())
    }
}

impl<'de> Deserialize<'de> for SharesSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SharesVisitor)
    }
}

struct SharesVisitor;

impl Visitor<'_> for SharesVisitor {
    type Value = SharesSetting;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"low\", \"normal\", \"high\" or a number of shares")
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<SharesSetting, E> {
        self.visit_str(&count.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SharesSetting, E> {
        text.parse().map(SharesSetting).map_err(E::custom)
    }
}

impl Serialize for TargetSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Fixed(amount) => amount.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TargetSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TargetVisitor)
    }
}

struct TargetVisitor;

impl Visitor<'_> for TargetVisitor {
    type Value = TargetSetting;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"auto\", a whole number of bytes, or a text such as \"200M\"")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<TargetSetting, E> {
        Ok(TargetSetting::Fixed(Amount(bytes)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<TargetSetting, E> {
        match text {
            "auto" => Ok(TargetSetting::Auto),
            _ => text.parse().map(|size: Size| TargetSetting::Fixed(size.into())).map_err(E::custom),
        }
    }
}

impl PartialSchema for SharesSetting {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Integer))
            .minimum(Some(1))
            .maximum(Some(Shares::MOST));
        let level = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .enum_values(Some(["low", "normal", "high"]));
        OneOfBuilder::new().item(number).item(level).description(Some("Shares: a number or a level.")).into()
    }
}

impl ToSchema for SharesSetting {}

impl PartialSchema for TargetSetting {
    fn schema() -> RefOr<Schema> {
        let auto = ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).enum_values(Some(["auto"]));
        OneOfBuilder::new()
            .item(auto)
            .item(Amount::schema())
            .description(Some("Who sets a target: the scheduler, or a user to this amount."))
            .into()
    }
}

impl ToSchema for TargetSetting {}

#[cfg(test)]
mod tests {
    use super::{Amount, FleetPatch, GuestPatch, SharesSetting, TargetRequest, TargetSetting};
    use crate::scheduler::Shares;

    #[test]
    fn a_change_names_what_changes() {
        let patch: GuestPatch = serde_json::from_str(r#"{"min": "64M", "shares": "high"}"#).unwrap();
        let expected =
            GuestPatch { min: Some(Amount(64 << 20)), shares: Some(SharesSetting(Shares::HIGH)), ..Default::default() };
        assert_eq!(patch, expected);
        assert_eq!(serde_json::to_string(&patch).unwrap(), r#"{"min":67108864,"shares":2000}"#);
        for json in [r#"{"mim": "64M"}"#, r#"{"shares": 0}"#, r#"{"shares": "very"}"#, r#"{"min": "64"}"#] {
            assert!(serde_json::from_str::<GuestPatch>(json).is_err(), "{json}");
        }
        assert!(serde_json::from_str::<FleetPatch>(r#"{"pool": "1G", "tax": 1}"#).is_err());
        assert!(serde_json::from_str::<FleetPatch>("{}").is_err());
    }

    #[test]
    fn a_target_is_the_schedulers_or_an_amount() {
        let read = |json: &str| serde_json::from_str::<TargetRequest>(json).map(|request| request.target).ok();
        assert_eq!(read(r#"{"target": "auto"}"#), Some(TargetSetting::Auto));
        for json in [r#"{"target": "200M"}"#, r#"{"target": 209715200}"#] {
            assert_eq!(read(json), Some(TargetSetting::Fixed(Amount(200 << 20))), "{json}");
        }
        for json in [r#"{"target": null}"#, r#"{"target": "Auto"}"#, "{}", r#"{"target": "auto", "for": 1}"#] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
