//! Which parents' selectors an orphan may match, without trying all of them.
//!
//! Answers candidates only: the caller checks the selector itself.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

use super::store::label_hash;
use crate::key::ObjectKey;
use crate::object::Labels;
use crate::selector::Selector;

/// The parents of one controller by their selectors.
#[derive(Default)]
pub struct SelectorIndex {
    /// By one label that the selector demands; under 0 those that demand none.
    buckets: HashMap<u64, HashSet<ObjectKey, FixedState>, FixedState>,
    selectors: HashMap<ObjectKey, Selector, FixedState>,
}

impl SelectorIndex {
    /// Notes a parent's selector in place of what was known; `None` takes the parent out. Tells whether it selects otherwise
    /// than before.
    pub fn set(&mut self, parent: &ObjectKey, selector: Option<Selector>) -> bool {
        let before = self.selectors.remove(parent);
        let is_another = before.is_some() && selector.is_some() && before != selector;
        if let Some(old) = before
            && let Some(bucket) = self.buckets.get_mut(&bucket_of(&old))
        {
            bucket.remove(parent);
            if bucket.is_empty() {
                self.buckets.remove(&bucket_of(&old));
            }
        }
        if let Some(selector) = selector {
            self.buckets.entry(bucket_of(&selector)).or_default().insert(parent.clone());
            self.selectors.insert(parent.clone(), selector);
        }
        is_another
    }

    /// The parents whose selectors match these labels, in the namespace or, for `None`, anywhere.
    #[must_use]
    pub fn matching(&self, namespace: Option<&str>, labels: &Labels<'_>) -> Vec<ObjectKey> {
        let hashes = labels.iter().map(|(key, value)| label_hash(key, value)).chain(std::iter::once(0));
        hashes
            .filter_map(|hash| self.buckets.get(&hash))
            .flatten()
            .filter(|parent| namespace.is_none_or(|namespace| parent.namespace() == namespace))
            .filter(|parent| self.selectors.get(*parent).is_some_and(|selector| selector.matches(labels)))
            .cloned()
            .collect()
    }
}

fn bucket_of(selector: &Selector) -> u64 {
    selector.exact_pairs().next().map_or(0, |(key, value)| label_hash(key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Object;
    use crate::object::tests::config_maps;

    #[test]
    fn finds_parents_by_equality_and_by_expression() {
        let mut index = SelectorIndex::default();
        let parent = |name: &str| ObjectKey::new("n", name);
        index.set(&parent("exact"), Some(Selector::parse("app=x").unwrap()));
        index.set(&parent("other"), Some(Selector::parse("app=y").unwrap()));
        index.set(&parent("loose"), Some(Selector::parse("app").unwrap()));
        index.set(&ObjectKey::new("m", "exact"), Some(Selector::parse("app=x").unwrap()));
        let text = r#"{"metadata":{"name":"o","namespace":"n","labels":{"app":"x"}}}"#;
        let orphan = Object::parse(text, &config_maps()).unwrap();
        let mut found = index.matching(Some("n"), &orphan.labels());
        found.sort();
        assert_eq!(found, [parent("exact"), parent("loose")]);
        assert_eq!(index.matching(None, &orphan.labels()).len(), 3);
        assert!(!index.set(&parent("exact"), None), "it selects nothing any more");
        assert!(index.set(&parent("loose"), Some(Selector::parse("app=z").unwrap())));
        assert!(!index.set(&parent("loose"), Some(Selector::parse("app=z").unwrap())), "it is the same");
        assert!(!index.set(&parent("exact"), Some(Selector::parse("app=v").unwrap())), "it is new");
        assert!(index.matching(Some("n"), &orphan.labels()).is_empty());
    }
}
