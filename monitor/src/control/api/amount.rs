//! An amount of memory in a request.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::size::Size;

/// An amount of memory in bytes. It is read from a whole number of bytes or from a text with a
/// unit, and written as the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(pub u64);

impl From<Size> for Amount {
    fn from(size: Size) -> Self {
        Self(size.bytes())
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

struct AmountVisitor;

impl Visitor<'_> for AmountVisitor {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of bytes, or a text such as \"512M\"")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Amount, E> {
        Ok(Amount(bytes))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Amount, E> {
        text.parse().map(|size: Size| size.into()).map_err(E::custom)
    }
}

impl PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        let bytes = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Integer))
            .minimum(Some(0))
            .description(Some("Bytes."));
        let text = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .pattern(Some("^[0-9]+[KMG]$"))
            .description(Some("A number and a unit, 1024-based."));
        OneOfBuilder::new().item(bytes).item(text).description(Some("An amount of memory: a multiple of 2 MiB.")).into()
    }
}

impl ToSchema for Amount {}

#[cfg(test)]
mod tests {
    use super::Amount;

    fn read(json: &str) -> Result<Amount, String> {
        serde_json::from_str(json).map_err(|error: serde_json::Error| error.to_string())
    }

    #[test]
    fn an_amount_is_bytes_or_a_text_with_a_unit() {
        assert_eq!(read("209715200"), Ok(Amount(200 << 20)));
        assert_eq!(read("\"200M\""), Ok(Amount(200 << 20)));
        assert_eq!(serde_json::to_string(&Amount(7)).unwrap(), "7");
        for json in ["-1", "1.5", "\"200\"", "\"\"", "null", "true", "[1]", "18446744073709551616"] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
