//! Canonical JSON: RFC 8785 but for numbers, which stay as they are written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Each level is read once more, so this bounds the time as well as the stack.
const MAX_DEPTH: usize = 128;

/// The canonical text of a JSON value, or why there is none.
pub(super) fn canonical(text: &str) -> Result<String, String> {
    let value: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut out = String::with_capacity(text.len());
    write(value, MAX_DEPTH, &mut out)?;
    Ok(out)
}

fn write(value: &RawValue, levels: usize, out: &mut String) -> Result<(), String> {
    let text = value.get();
    let inside = || {
        let deeper = levels.checked_sub(1);
        deeper.ok_or_else(|| format!("it is nested deeper than {MAX_DEPTH}"))
    };
    match text.as_bytes().first() {
        Some(b'{') => {
            let levels = inside()?;
            let Members(members) = read(text)?;
            out.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                comma(index, out);
                string(name, out)?;
                out.push(':');
                write(value, levels, out)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let levels = inside()?;
            let values: Vec<&RawValue> = read(text)?;
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                comma(index, out);
                write(value, levels, out)?;
            }
            out.push(']');
        }
        Some(b'"') => string(&read::<String>(text)?, out)?,
        // A number, true, false or null.
        _ => out.push_str(text),
    }
    Ok(())
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn comma(index: usize, out: &mut String) {
    if index > 0 {
        out.push(',');
    }
}

/// `serde_json` escapes as RFC 8785 does: what JSON requires and nothing else, with lower-case digits.
fn string(text: &str, out: &mut String) -> Result<(), String> {
    out.push_str(&serde_json::to_string(text).map_err(|error| error.to_string())?);
    Ok(())
}

/// The members of an object, sorted by the UTF-16 code units of their names, as RFC 8785 has it.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        let mut members = deserializer.deserialize_map(Collect)?;
        members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
        match members.windows(2).find(|two| two[0].0 == two[1].0) {
            Some(two) => Err(D::Error::custom(format_args!(
                "duplicate key {:?}",
                two[0].0
            ))),
            None => Ok(Self(members)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn canonical_text(text: &str) -> String {
        canonical(text).unwrap()
    }

    #[test]
    fn keys_are_sorted_and_white_space_goes() {
        assert_eq!(
            canonical_text(" { \"b\" : [ 1 , true , null ] ,\n\"a\":{ \"d\":{}, \"c\":[] } } "),
            r#"{"a":{"c":[],"d":{}},"b":[1,true,null]}"#
        );
    }

    /// The example of RFC 8785, section 3.2.3.
    #[test]
    fn keys_are_sorted_by_utf_16() {
        let object = "{\"\u{20ac}\":1,\"\\r\":2,\"\u{fb33}\":3,\"1\":4,\"\u{1f600}\":5,\"\u{80}\":6,\"\u{f6}\":7}";
        let sorted = "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}";
        assert_eq!(canonical_text(object), sorted);
    }

    #[test]
    fn numbers_stay_as_they_are_written() {
        for number in [
            "1",
            "1.0",
            "1E5",
            "1e+5",
            "-0",
            "100000000000000000001",
            "0.1e-7",
        ] {
            assert_eq!(canonical_text(&format!(" {number}\n")), number);
        }
    }

    #[test]
    fn strings_are_escaped_as_rfc_8785_says() {
        let typed = r#""\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/\ud83d\ude00\b""#;
        assert_eq!(
            canonical_text(typed),
            "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\u{1f600}\\b\""
        );
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for wrong in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "01",
            "1.",
            "+1",
            "NaN",
            "'a'",
            "nul",
            "1 2",
            "\"\\ud800\"",
            "\"\n\"",
            "[\"\\x\"]",
            "{1:2}",
        ] {
            assert!(canonical(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn duplicate_keys_are_refused_however_they_are_spelled() {
        let error = canonical(r#"[{"a":1,"\u0061":2}]"#).unwrap_err();
        assert!(error.starts_with(r#"duplicate key "a""#), "{error}");
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(canonical_text(&nested(MAX_DEPTH)), nested(MAX_DEPTH));
        assert_eq!(
            canonical(&nested(MAX_DEPTH + 1)),
            Err("it is nested deeper than 128".to_owned())
        );
        assert!(canonical(&"[".repeat(60_000)).is_err());
        assert!(canonical(&nested(30_000)).is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                prop::collection::hash_map(any::<String>(), inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_text_means_the_same_and_is_a_fixed_point(value in any_json()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let written = canonical_text(&pretty);
            prop_assert_eq!(&serde_json::from_str::<Value>(&written).unwrap(), &value);
            prop_assert_eq!(&canonical_text(&written), &written);
            prop_assert_eq!(&canonical_text(&value.to_string()), &written);
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = canonical(&text);
        }
    }
}
