//! Field values as people type and read them, to and from `local.proto`.
//!
//! Pure. `name=text` and `name:=JSON` on the command line; one JSON form for output that can be
//! typed back in, so that an item can be copied with a script.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};
use mfpsync_proto::local::value::Value as Kind;
use mfpsync_proto::local::{Field, Opaque, TextSet, Value};
use serde_json::{Value as Json, json};

use crate::output::printable;

/// Parses one `name=text` or `name:=JSON` argument.
///
/// # Errors
/// A sentence saying what is expected.
pub(crate) fn field(argument: &str) -> Result<Field, String> {
    let (name, text) = argument
        .split_once('=')
        .ok_or_else(|| format!("`{argument}` is neither NAME=TEXT nor NAME:=JSON"))?;
    let (name, kind) = match name.strip_suffix(':') {
        Some(name) => (name, from_json_text(text).map_err(|why| format!("`{argument}`: {why}"))?),
        None => (name, Kind::Text(text.to_owned())),
    };
    if name.is_empty() {
        return Err(format!("`{argument}` has no field name"));
    }
    Ok(Field { name: name.to_owned(), value: Some(Value { value: Some(kind) }) })
}

/// A text field.
pub(crate) fn text_field(name: impl Into<String>, text: impl Into<String>) -> Field {
    Field { name: name.into(), value: Some(Value { value: Some(Kind::Text(text.into())) }) }
}

fn from_json_text(text: &str) -> Result<Kind, String> {
    let json: Json = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    from_json(&json)
}

/// A value from its JSON form.
///
/// # Errors
/// A sentence saying what is expected.
pub(crate) fn from_json(json: &Json) -> Result<Kind, String> {
    match json {
        Json::String(text) => Ok(Kind::Text(text.clone())),
        Json::Bool(flag) => Ok(Kind::Flag(*flag)),
        Json::Number(number) => {
            number.as_i64().map(Kind::Integer).ok_or_else(|| format!("{number} is no 64-bit integer"))
        }
        Json::Array(texts) => set_of(texts),
        Json::Object(object) => from_object(object),
        Json::Null => Err("null is no value; use `item patch --remove NAME`".to_owned()),
    }
}

fn set_of(texts: &[Json]) -> Result<Kind, String> {
    let texts: Option<Vec<String>> = texts.iter().map(|text| text.as_str().map(str::to_owned)).collect();
    let texts = texts.ok_or("a set holds texts only")?;
    Ok(Kind::Set(TextSet { texts }))
}

fn from_object(object: &serde_json::Map<String, Json>) -> Result<Kind, String> {
    const EXPECTED: &str = r#"an object is {"bytes": BASE64} or {"opaque": BASE64, "type": NUMBER}"#;
    let base64 = |name: &str| {
        let text = object.get(name)?.as_str()?;
        BASE64.decode(text.as_bytes()).ok()
    };
    match object.len() {
        1 => base64("bytes").map(|bytes| Kind::Bytes(bytes.into())),
        2 => base64("opaque").zip(object.get("type").and_then(Json::as_u64)).and_then(|(payload, number)| {
            let r#type = u32::try_from(number).ok()?;
            Some(Kind::Opaque(Opaque { r#type, payload: payload.into() }))
        }),
        _ => None,
    }
    .ok_or_else(|| EXPECTED.to_owned())
}

/// A value as JSON; all but sealed secrets can be typed back in.
pub(crate) fn to_json(value: Option<&Value>) -> Json {
    match value.and_then(|value| value.value.as_ref()) {
        None => Json::Null,
        Some(Kind::Text(text)) => json!(text),
        Some(Kind::Integer(integer)) => json!(integer),
        Some(Kind::Flag(flag)) => json!(flag),
        Some(Kind::Bytes(bytes)) => json!({ "bytes": BASE64.encode(bytes) }),
        Some(Kind::Set(set)) => json!(set.texts),
        Some(Kind::Sealed(sealed)) => json!({ "sealed_by": HEXLOWER.encode(&sealed.key_id) }),
        Some(Kind::Opaque(opaque)) => {
            json!({ "opaque": BASE64.encode(&opaque.payload), "type": opaque.r#type })
        }
    }
}

/// A value for a line on the screen.
pub(crate) fn to_text(value: Option<&Value>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        None => "(no value)".to_owned(),
        Some(Kind::Text(text)) => printable(text).into_owned(),
        Some(Kind::Integer(integer)) => integer.to_string(),
        Some(Kind::Flag(flag)) => if *flag { "yes" } else { "no" }.to_owned(),
        Some(Kind::Bytes(bytes)) => format!("({} bytes)", bytes.len()),
        Some(Kind::Set(set)) => {
            let texts: Vec<_> = set.texts.iter().map(|text| printable(text)).collect();
            format!("{{{}}}", texts.join(", "))
        }
        Some(Kind::Sealed(_)) => "(sealed secret)".to_owned(),
        Some(Kind::Opaque(opaque)) => {
            format!("(type {}, {} bytes, kept as it is)", opaque.r#type, opaque.payload.len())
        }
    }
}

/// Fields by name, for comparing; sets are sorted, since their order carries no meaning.
pub(crate) fn by_name(fields: &[Field]) -> BTreeMap<&str, Value> {
    let normal = |field: &Field| {
        let mut value = field.value.clone().unwrap_or_default();
        if let Some(Kind::Set(set)) = &mut value.value {
            set.texts.sort();
            set.texts.dedup();
        }
        value
    };
    fields.iter().map(|field| (field.name.as_str(), normal(field))).collect()
}

/// The text of a field, when it is there and a text.
pub(crate) fn text_of<'a>(fields: &'a [Field], name: &str) -> Option<&'a str> {
    let field = fields.iter().find(|field| field.name == name)?;
    match field.value.as_ref()?.value.as_ref()? {
        Kind::Text(text) => Some(text),
        Kind::Integer(_)
        | Kind::Flag(_)
        | Kind::Bytes(_)
        | Kind::Set(_)
        | Kind::Sealed(_)
        | Kind::Opaque(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(argument: &str) -> Result<String, String> {
        field(argument).map(|field| format!("{} {}", field.name, to_json(field.value.as_ref())))
    }

    #[test]
    fn fields_are_texts_unless_json_is_announced() {
        assert_eq!(shown("cn=true").unwrap(), r#"cn "true""#);
        assert_eq!(shown("url=http://a/?b:=c").unwrap(), r#"url "http://a/?b:=c""#);
        assert_eq!(shown("empty=").unwrap(), r#"empty """#);
    }

    #[test]
    fn json_values_come_back_as_they_were_typed() {
        for json in ["true", "-7", r#"["a","b"]"#, r#"{"bytes":"AAE="}"#, r#"{"opaque":"AQ==","type":9}"#] {
            assert_eq!(shown(&format!("x:={json}")).unwrap(), format!("x {json}"));
        }
    }

    #[test]
    fn what_has_no_place_in_a_field_is_refused_with_a_reason() {
        assert!(shown("novalue").unwrap_err().contains("NAME=TEXT"));
        assert!(shown("=x").unwrap_err().contains("no field name"));
        assert!(shown("x:=1.5").unwrap_err().contains("integer"));
        assert!(shown("x:=[1]").unwrap_err().contains("texts only"));
        assert!(shown("x:=null").unwrap_err().contains("--remove"));
        assert!(shown("x:={\"bytes\":1}").unwrap_err().contains("BASE64"));
    }

    #[test]
    fn sets_are_equal_in_any_order() {
        let (a, b) = (field(r#"m:=["1","2"]"#).unwrap(), field(r#"m:=["2","1","2"]"#).unwrap());
        assert_eq!(by_name(&[a]), by_name(&[b]));
    }
}
