//! Sets of fields, as trees of steps.
//!
//! Operations and their meaning are those of structured-merge-diff v6 (fieldpath/set.go). A node that is a member says
//! nothing of the nodes below it, and the reverse.

use std::cmp::Ordering;

use super::step::Step;

/// A set of fields below some place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set {
    /// Fields that are in the set; sorted.
    pub members: Vec<Step>,
    /// Fields that have others below them in the set; sorted.
    pub children: Vec<(Step, Set)>,
}

impl Set {
    /// A set of paths of names.
    pub(crate) fn of(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<Step> = path.iter().map(|name| Step::field(name)).collect();
            set.insert_path(&path.iter().collect::<Vec<_>>());
        }
        set
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.iter().all(|(_, below)| below.is_empty())
    }

    /// Adds one field of this place.
    pub(crate) fn insert(&mut self, step: Step) {
        if self.members.last().is_none_or(|last| *last < step) {
            self.members.push(step);
        } else if let Err(at) = self.members.binary_search(&step) {
            self.members.insert(at, step);
        }
    }

    /// Adds what is below a field of this place; nothing if there is nothing.
    pub(crate) fn attach(&mut self, step: Step, below: Self) {
        if below.members.is_empty() && below.children.is_empty() {
            return;
        }
        match self.children.binary_search_by(|(known, _)| known.cmp(&step)) {
            Ok(at) => self.children[at].1 = self.children[at].1.union(&below),
            Err(at) => self.children.insert(at, (step, below)),
        }
    }

    /// What is below a field of this place, to add to it.
    fn below_mut(&mut self, step: &Step) -> &mut Self {
        let at = match self.children.binary_search_by(|(known, _)| known.cmp(step)) {
            Ok(at) => at,
            Err(at) => {
                self.children.insert(at, (step.clone(), Self::default()));
                at
            }
        };
        &mut self.children[at].1
    }

    /// Adds a path.
    pub(crate) fn insert_path(&mut self, path: &[&Step]) {
        let Some((last, before)) = path.split_last() else { return };
        before.iter().fold(self, |place, step| place.below_mut(step)).insert((*last).clone());
    }

    /// Whether this field of this place is in it.
    pub(crate) fn has(&self, step: &Step) -> bool {
        self.members.binary_search(step).is_ok()
    }

    /// Whether a path is in it.
    pub(crate) fn has_path(&self, path: &[Step]) -> bool {
        match path {
            [] => false,
            [last] => self.has(last),
            [first, rest @ ..] => self.below(first).is_some_and(|below| below.has_path(rest)),
        }
    }

    /// What is below a field of this place.
    pub(crate) fn below(&self, step: &Step) -> Option<&Self> {
        let at = self.children.binary_search_by(|(known, _)| known.cmp(step)).ok()?;
        Some(&self.children[at].1)
    }

    /// What is in either.
    pub(crate) fn union(&self, other: &Self) -> Self {
        if other.members.is_empty() && other.children.is_empty() {
            return self.clone();
        }
        let mut out = Self {
            members: Vec::with_capacity(self.members.len() + other.members.len()),
            children: Vec::with_capacity(self.children.len() + other.children.len()),
        };
        zip(
            &self.members,
            &other.members,
            |step| step,
            |mine, theirs| {
                out.members.extend(mine.or(theirs).cloned());
            },
        );
        zip(
            &self.children,
            &other.children,
            |(step, _)| step,
            |mine, theirs| {
                out.children.extend(match (mine, theirs) {
                    (Some((step, mine)), Some((_, theirs))) => Some((step.clone(), mine.union(theirs))),
                    (mine, theirs) => mine.or(theirs).cloned(),
                });
            },
        );
        out
    }

    /// What is in either; takes what it can as it is.
    pub(crate) fn or(self, other: Self) -> Self {
        if self.members.is_empty() && self.children.is_empty() { other } else { self.union(&other) }
    }

    /// What is in both.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut out = Self::default();
        zip(
            &self.members,
            &other.members,
            |step| step,
            |mine, theirs| {
                out.members.extend(theirs.and(mine).cloned());
            },
        );
        zip(
            &self.children,
            &other.children,
            |(step, _)| step,
            |mine, theirs| {
                if let (Some((step, mine)), Some((_, theirs))) = (mine, theirs) {
                    let both = mine.intersection(theirs);
                    if !both.is_empty() {
                        out.children.push((step.clone(), both));
                    }
                }
            },
        );
        out
    }

    /// Whether something is in both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let mut meets = false;
        zip(&self.members, &other.members, |step| step, |mine, theirs| meets |= mine.is_some() && theirs.is_some());
        zip(
            &self.children,
            &other.children,
            |(step, _)| step,
            |mine, theirs| {
                if let (Some((_, mine)), Some((_, theirs))) = (mine, theirs) {
                    meets = meets || mine.meets(theirs);
                }
            },
        );
        meets
    }

    /// Whether all that is in the other is in this.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.members.iter().all(|member| self.has(member))
            && other.children.iter().all(|(step, below)| match self.below(step) {
                Some(mine) => mine.covers(below),
                None => below.is_empty(),
            })
    }

    /// What is in this and not in the other. A field below a field of the other stays.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        self.without(other, false)
    }

    /// What is in this, and neither in the other nor below a field of it.
    pub(crate) fn recursive_difference(&self, other: &Self) -> Self {
        self.without(other, true)
    }

    fn without(&self, other: &Self, recursive: bool) -> Self {
        let mut out = Self::default();
        zip(
            &self.members,
            &other.members,
            |step| step,
            |mine, theirs| {
                if theirs.is_none() {
                    out.members.extend(mine.cloned());
                }
            },
        );
        zip(
            &self.children,
            &other.children,
            |(step, _)| step,
            |mine, theirs| {
                let Some((step, below)) = mine else { return };
                if recursive && other.has(step) {
                    return;
                }
                match theirs {
                    None => out.children.push((step.clone(), below.clone())),
                    Some((_, theirs)) => {
                        let left = below.without(theirs, recursive);
                        if !left.is_empty() {
                            out.children.push((step.clone(), left));
                        }
                    }
                }
            },
        );
        out
    }

    /// All paths, those of a place before those below it.
    pub(crate) fn paths(&self) -> Vec<Vec<Step>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Vec<Step>, out: &mut Vec<Vec<Step>>) {
        for member in &self.members {
            let mut path = prefix.clone();
            path.push(member.clone());
            out.push(path);
        }
        for (step, below) in &self.children {
            prefix.push(step.clone());
            below.collect(prefix, out);
            prefix.pop();
        }
    }
}

/// Goes through two sorted lists at once.
fn zip<'a, T, K: Ord + 'a>(
    a: &'a [T],
    b: &'a [T],
    key: impl Fn(&'a T) -> &'a K,
    mut each: impl FnMut(Option<&'a T>, Option<&'a T>),
) {
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        let order = match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) => key(x).cmp(key(y)),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        each(a.get(i).filter(|_| order.is_le()), b.get(j).filter(|_| order.is_ge()));
        i += usize::from(order.is_le());
        j += usize::from(order.is_ge());
    }
}
