//! The latest state of few named things, told by a watch, by lists and by the answers to our own writes, in any order.
//!
//! Never forgets what is there, and never lets an older word undo a newer one.

use std::collections::BTreeMap;

use ringmaster_core::key::Version;

/// Names of things that are gone are remembered up to this number.
const MAX_GONE: usize = 1024;

/// By name: the version of the last word, and what is there since.
#[derive(Debug)]
pub(crate) struct Latest<T>(BTreeMap<String, (Version, Option<T>)>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Latest<T> {
    /// A word about one thing; tells whether it was news.
    pub(crate) fn set(&mut self, name: &str, version: Version, state: Option<T>) -> bool {
        if !self.is_older(name, version) {
            return false;
        }
        let gone = state.is_none();
        self.0.insert(name.to_owned(), (version, state));
        if gone && self.0.len() > MAX_GONE {
            self.0.retain(|_, (_, state)| state.is_some());
        }
        true
    }

    /// Whether a word of this version would be news.
    pub(crate) fn is_older(&self, name: &str, version: Version) -> bool {
        self.0.get(name).is_none_or(|(known, _)| *known < version)
    }

    /// A complete list as of a version; tells whether it was news.
    pub(crate) fn listed(&mut self, list: BTreeMap<String, (Version, T)>, version: Version) -> bool {
        let missing = |(name, (known, state)): (&String, &(Version, Option<T>))| {
            (state.is_some() && !list.contains_key(name) && *known <= version).then(|| name.clone())
        };
        let missing: Vec<String> = self.0.iter().filter_map(missing).collect();
        let mut news = !missing.is_empty();
        for name in missing {
            self.0.insert(name, (version, None));
        }
        for (name, (version, state)) in list {
            news |= self.set(&name, version, Some(state));
        }
        news
    }

    /// What is there.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().filter_map(|(name, (_, state))| Some((name.as_str(), state.as_ref()?)))
    }

    /// One thing.
    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        self.0.get(name)?.1.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(latest: &Latest<u8>) -> Vec<(String, u8)> {
        latest.iter().map(|(name, state)| (name.to_owned(), *state)).collect()
    }

    fn list(entries: &[(&str, u64, u8)]) -> BTreeMap<String, (Version, u8)> {
        entries.iter().map(|(name, version, state)| ((*name).to_owned(), (Version(*version), *state))).collect()
    }

    #[test]
    fn older_words_change_nothing() {
        let mut latest = Latest::default();
        assert!(latest.set("a", Version(5), Some(1)));
        assert!(!latest.set("a", Version(5), Some(2)) && !latest.set("a", Version(4), None));
        assert!(latest.set("a", Version(6), None) && !latest.set("a", Version(5), Some(3)));
        assert_eq!(latest.get("a"), None);
        assert!(latest.set("a", Version(7), Some(4)));
        assert_eq!(names(&latest), [("a".to_owned(), 4)]);
    }

    #[test]
    fn a_list_tells_what_is_gone_but_not_of_what_is_newer() {
        let mut latest = Latest::default();
        latest.set("a", Version(5), Some(1));
        latest.set("b", Version(12), Some(2));
        assert!(latest.listed(list(&[("c", 3, 3)]), Version(10)));
        assert_eq!(names(&latest), [("b".to_owned(), 2), ("c".to_owned(), 3)]);
        assert!(!latest.listed(list(&[("c", 3, 3)]), Version(10)));
        assert!(!latest.set("a", Version(9), Some(9)), "what the list didn't name was gone by then");
        assert!(latest.listed(list(&[("b", 12, 2)]), Version(20)));
        assert_eq!(names(&latest), [("b".to_owned(), 2)]);
    }

    #[test]
    fn memory_of_what_is_gone_is_bounded() {
        let mut latest = Latest::default();
        latest.set("x", Version(1), Some(1));
        for index in 0..3 * MAX_GONE {
            latest.set(&index.to_string(), Version(2), None);
        }
        assert!(latest.0.len() <= MAX_GONE + 1 && latest.get("x").is_some());
    }
}
