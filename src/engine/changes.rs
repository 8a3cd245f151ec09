//! What one sync did to a parent's children, and the words of events for it.
//!
//! Never longer than an event may be, however many children there are, and never dependent on the order in which writes
//! were answered: equal changes must be equal events.

use ringmaster_core::key::ObjectKey;

/// Children of one event that are named; others are counted.
const MAX_NAMED: usize = 10;
/// Names are added while the text is at most this long. With one more (kind, namespace and name have at most 63, 63 and
/// 253 bytes) it still fits into an event's 1 KiB.
const MAX_NAMES_BYTES: usize = 500;

/// What was done to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// It is new.
    Created,
    /// It was merged with what the hook wants.
    Updated,
    /// It was deleted, to be made anew as the hook wants it.
    Recreated,
    /// The hook didn't name it any more.
    Deleted,
}

impl Change {
    const ALL: [Self; 4] = [Self::Created, Self::Updated, Self::Recreated, Self::Deleted];

    /// An event's reason, and how its text begins.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Created => ("ChildCreated", "created"),
            Self::Updated => ("ChildUpdated", "updated"),
            Self::Recreated => ("ChildRecreated", "deleted, to make it anew,"),
            Self::Deleted => ("ChildDeleted", "deleted"),
        }
    }
}

/// The changes of one sync: how, of which declared kind, which child.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<(Change, usize, ObjectKey)>);

impl Extend<(Change, usize, ObjectKey)> for Changes {
    fn extend<T: IntoIterator<Item = (Change, usize, ObjectKey)>>(&mut self, changes: T) {
        self.0.extend(changes);
    }
}

impl Changes {
    /// Reason and text of an event for each kind of change. Children in `home` are named without their namespace; `kind`
    /// names a declared kind.
    pub(crate) fn tell<'a>(mut self, home: &str, kind: impl Fn(usize) -> &'a str) -> Vec<(&'static str, String)> {
        self.0.sort_unstable();
        let groups = Change::ALL.into_iter().filter_map(|change| {
            let start = self.0.partition_point(|(other, ..)| *other < change);
            let end = self.0.partition_point(|(other, ..)| *other <= change);
            let (reason, verb) = change.words();
            let children = self.0.get(start..end).filter(|children| !children.is_empty())?;
            Some((reason, format!("{verb} {}", names(children, home, &kind))))
        });
        groups.collect()
    }
}

fn names<'a>(children: &[(Change, usize, ObjectKey)], home: &str, kind: &impl Fn(usize) -> &'a str) -> String {
    let (mut text, mut named) = (String::new(), 0);
    for (_, index, key) in children.iter().take(MAX_NAMED) {
        if text.len() > MAX_NAMES_BYTES {
            break;
        }
        named += 1;
        let is_last = named == children.len();
        text.push_str(match named {
            1 => "",
            _ if is_last => " and ",
            _ => ", ",
        });
        let name = if key.namespace() == home { key.name().to_owned() } else { key.to_string() };
        text.push_str(&format!("{} {name}", kind(*index)));
    }
    match children.len() - named {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 2] = ["ConfigMap", "Deployment"];

    fn tell(changes: Vec<(Change, usize, ObjectKey)>) -> Vec<(&'static str, String)> {
        Changes(changes).tell("home", |index| KINDS[index])
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("home", name)
    }

    #[test]
    fn each_kind_of_change_is_a_reason_and_names_its_children() {
        assert_eq!(tell(Vec::new()), Vec::new());
        let told = tell(vec![
            (Change::Deleted, 0, key("old")),
            (Change::Created, 1, key("a")),
            (Change::Recreated, 0, key("b")),
            (Change::Created, 0, ObjectKey::new("away", "c")),
            (Change::Updated, 0, key("d")),
        ]);
        let wanted = [
            ("ChildCreated", "created ConfigMap away/c and Deployment a"),
            ("ChildUpdated", "updated ConfigMap d"),
            ("ChildRecreated", "deleted, to make it anew, ConfigMap b"),
            ("ChildDeleted", "deleted ConfigMap old"),
        ];
        assert_eq!(told, wanted.map(|(reason, text)| (reason, text.to_owned())));
    }

    #[test]
    fn the_order_of_the_answers_makes_no_other_event() {
        let changes = |names: [&str; 3]| names.map(|name| (Change::Created, 0, key(name))).to_vec();
        assert_eq!(tell(changes(["a", "b", "c"])), tell(changes(["c", "a", "b"])));
        assert_eq!(tell(changes(["c", "b", "a"]))[0].1, "created ConfigMap a, ConfigMap b and ConfigMap c");
    }

    #[test]
    fn a_text_is_bounded_by_number_and_by_length() {
        let many = (0..10_000).map(|index| (Change::Created, 0, key(&format!("c{index:05}")))).collect();
        let text = &tell(many)[0].1;
        assert!(text.ends_with("ConfigMap c00009 and 9990 more"), "{text}");
        let long = (0..9).map(|index| (Change::Updated, 0, key(&format!("{index}{}", "x".repeat(252))))).collect();
        let text = &tell(long)[0].1;
        assert!(text.len() < 1000 && text.ends_with("x and 7 more"), "{text}");
    }
}
