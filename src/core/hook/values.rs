//! JSON text that is only passed over: single fields of it, whether it can be made a tree of later, and whether it says
//! everything once.
//!
//! Never builds anything: what a reply holds is as large as its sender likes.

use std::collections::HashSet;
use std::fmt;

use foldhash::fast::FixedState;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::reply::{MAX_NAME_CHARS, excerpt};
use crate::hash::xxh;

/// An object's names are compared one by one up to this number, and by a table beyond it.
const FEW_NAMES: usize = 16;

/// Text that is only passed over may hold numbers that are out of range and halves of surrogate pairs, which
/// `serde_json`'s tree can't. If `once`, no field of an object may stand twice.
pub(super) fn check_values(raw: &RawValue, once: bool) -> Result<(), serde_json::Error> {
    let mut names = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    Check { names: once.then_some(&mut names) }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// The fields of these names of an object, each as it stands; of one that stands twice the last.
///
/// # Errors
/// If it is no object.
pub(crate) fn find<'de, const N: usize>(
    object: &'de RawValue,
    names: [&str; N],
) -> Result<[Option<&'de RawValue>; N], serde_json::Error> {
    struct Fields<'n, const N: usize>([&'n str; N]);
    impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
        type Value = [Option<&'de RawValue>; N];
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            while let Some(place) = fields.next_key_seed(Place(&self.0))? {
                let value = fields.next_value()?;
                if let Some(found) = place.and_then(|place| found.get_mut(place)) {
                    *found = Some(value);
                }
            }
            Ok(found)
        }
    }
    serde_json::Deserializer::from_str(object.get()).deserialize_map(Fields(names))
}

/// A name's place in a list.
struct Place<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Place<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|wanted| *wanted == name))
    }
}

/// One value. `names` holds hashes of the names of all objects around it, each object's at the end of its parent's.
struct Check<'a> {
    names: Option<&'a mut Vec<u64>>,
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Check { names: self.names.as_deref_mut() })?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        let start = self.names.as_ref().map_or(0, |names| names.len());
        let mut many: Option<HashSet<u64, FixedState>> = None;
        while let Some(twice) =
            fields.next_key_seed(Name { names: self.names.as_deref_mut(), start, many: &mut many })?
        {
            if let Some(name) = twice {
                let name = excerpt(&name, MAX_NAME_CHARS);
                return Err(A::Error::custom(format_args!(
                    "{name} stands twice in an object (webhook.responseUnMarshallMode: loose takes the last)"
                )));
            }
            fields.next_value_seed(Check { names: self.names.as_deref_mut() })?;
        }
        if let Some(names) = self.names {
            names.truncate(start);
        }
        Ok(())
    }
}

/// A field's name; its value is the name if it stands twice.
struct Name<'a> {
    names: Option<&'a mut Vec<u64>>,
    /// Where the names of its object begin.
    start: usize,
    /// The same names, once there are many.
    many: &'a mut Option<HashSet<u64, FixedState>>,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<String>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<String>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Option<String>, E> {
        let Some(names) = self.names else { return Ok(None) };
        let hash = xxh(name.as_bytes());
        let own = &names[self.start..];
        let known = if own.len() < FEW_NAMES {
            own.contains(&hash)
        } else {
            !self.many.get_or_insert_with(|| own.iter().copied().collect()).insert(hash)
        };
        if self.many.is_none() {
            names.push(hash);
        }
        Ok(known.then(|| name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, once: bool) -> Result<(), String> {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        check_values(raw, once).map_err(|error| error.to_string())
    }

    #[test]
    fn names_may_repeat_in_different_objects_only() {
        for good in [r#"{"a":{"a":1,"b":[{"a":1},{"a":2}]},"b":{"a":1}}"#, "[]", "1", r#""\u00e9""#, "{}"] {
            assert_eq!(check(good, true), Ok(()), "{good}");
        }
        for bad in [r#"{"a":1,"b":2,"a":3}"#, r#"[{"x":{"a":{"b":1,"c":2},"a":3}}]"#, r#"{"\u0061":1,"a":2}"#] {
            assert!(check(bad, true).unwrap_err().contains("a stands twice"), "{bad}");
            assert_eq!(check(bad, false), Ok(()), "{bad}");
        }
    }

    #[test]
    fn single_fields_are_found_as_they_stand() {
        let raw: &RawValue = serde_json::from_str(r#"{"a": [1, 2],"\u0062":null,"c":1,"c":2}"#).unwrap();
        let found = find(raw, ["a", "b", "c", "d"]).unwrap().map(|found| found.map(RawValue::get));
        assert_eq!(found, [Some("[1, 2]"), Some("null"), Some("2"), None]);
        for bad in ["[]", "1", "null"] {
            assert!(find(serde_json::from_str(bad).unwrap(), ["a"]).is_err(), "{bad}");
        }
    }

    #[test]
    fn many_names_are_told_apart_too() {
        let object = |names: &[String]| {
            let fields: Vec<String> = names.iter().map(|name| format!(r#""{name}":{{"x":1,"y":2}}"#)).collect();
            format!("{{{}}}", fields.join(","))
        };
        let mut names: Vec<String> = (0..100).map(|number| format!("n{number}")).collect();
        assert_eq!(check(&object(&names), true), Ok(()));
        for at in [1, 15, 16, 17, 99] {
            let first = names[at - 1].clone();
            let kept = std::mem::replace(&mut names[at], first.clone());
            assert!(check(&object(&names), true).unwrap_err().contains(&format!("{first} stands twice")), "{at}");
            names[at] = kept;
        }
    }

    #[test]
    fn what_a_tree_cannot_hold_is_refused() {
        for bad in [r#"["\ud800"]"#, r#"{"a":1e999}"#] {
            assert!(check(bad, false).is_err() && check(bad, true).is_err(), "{bad}");
        }
    }
}
