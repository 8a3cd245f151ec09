//! What keeps the members busy: titles change all the time, and each change must show.
//!
//! Never waits for what a change leads to, and never changes the Website that [`Wishes::spare`] names, nor the first of
//! several: that is for those who play.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::scene;
use crate::objects::Objects;

/// Time between two changes.
const PACE: Duration = Duration::from_millis(50);
/// So many changes that makes a second, at most.
pub(crate) const PER_SECOND: u128 = 1000 / PACE.as_millis();
/// One in so many of the changes that there was time for must have been made, or that all are served proves nothing; a
/// slow machine makes fewer than all.
const ENOUGH: u64 = 4;

/// What users want of Websites, and since when they wait for it.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// By name: the generation that was last asked for, and when the first one was that isn't served yet.
    open: HashMap<String, (u64, Instant)>,
    titles: HashMap<String, String>,
    spared: Option<String>,
    /// How many changes there were.
    made: u64,
    /// How many could not be made, and why the last of them.
    failed: u64,
    last_error: Option<String>,
    longest: Duration,
    /// The same since the last [`Wishes::begin_span`].
    longest_of_span: Duration,
}

impl Wishes {
    /// A change was made.
    fn ask(&mut self, now: Instant, name: &str, generation: u64, title: String) {
        self.made += 1;
        self.open.entry(name.to_owned()).or_insert((generation, now)).0 = generation;
        self.titles.insert(name.to_owned(), title);
    }

    /// A change could not be made.
    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.last_error = Some(why);
    }

    /// What is wrong if so few changes were made in this time that they prove nothing.
    pub(crate) fn too_few(&self, elapsed: Duration) -> Option<String> {
        let wanted = u64::try_from(elapsed.as_millis() / PACE.as_millis()).unwrap_or(u64::MAX) / ENOUGH;
        // Without any, nothing was looked at, however short the time.
        (self.made < wanted.max(1)).then(|| {
            let Self { made, failed, .. } = self;
            let seconds = elapsed.as_secs_f64();
            let last = self.last_error.as_ref().map(|why| format!(", the last one: {why}")).unwrap_or_default();
            format!(
                "only {made} changes were made in {seconds:.0} s, which proves nothing: {} are needed; {failed} failed{last}",
                wanted.max(1)
            )
        })
    }

    /// The Websites as they are now: what they show isn't waited for any more.
    pub(crate) fn see(&mut self, now: Instant, websites: &[Value]) {
        for website in websites {
            let Some(name) = website["metadata"]["name"].as_str() else { continue };
            let shown = website["status"]["observedGeneration"].as_u64().unwrap_or(0);
            if let Some((_, since)) = self.open.get(name).filter(|(generation, _)| shown >= *generation) {
                let took = now.saturating_duration_since(*since);
                self.longest = self.longest.max(took);
                self.longest_of_span = self.longest_of_span.max(took);
                self.open.remove(name);
            }
        }
    }

    /// How many wait, and how long the first of them has waited.
    pub(crate) fn waiting(&self, now: Instant) -> (usize, Duration) {
        let first = self.open.values().map(|(_, since)| *since).min();
        (self.open.len(), first.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)))
    }

    /// The longest that a change had to wait until it was seen to be served.
    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    /// From now on, what [`Wishes::span`] tells is asked about.
    pub(crate) fn begin_span(&mut self) {
        self.longest_of_span = Duration::ZERO;
    }

    /// The longest wait that ended, or still goes on, in the span that was begun last.
    pub(crate) fn span(&self, now: Instant) -> Duration {
        self.longest_of_span.max(self.waiting(now).1)
    }

    /// How many changes there were.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    /// What waits now: names, with the generation that was asked for.
    pub(crate) fn snapshot(&self) -> HashMap<String, u64> {
        self.open.iter().map(|(name, (generation, _))| (name.clone(), *generation)).collect()
    }

    /// The titles that were asked for last, by name.
    pub(crate) fn titles(&self) -> HashMap<String, String> {
        self.titles.clone()
    }

    /// Leaves one Website alone, until another is named.
    pub(crate) fn spare(&mut self, name: Option<&str>) {
        self.spared = name.map(ToOwned::to_owned);
    }
}

/// The names in a snapshot whose Websites don't show what was asked for.
pub(crate) fn forgotten<'a>(wanted: &'a HashMap<String, u64>, websites: &[Value]) -> Vec<&'a str> {
    let shown: HashMap<&str, u64> = websites
        .iter()
        .filter_map(|site| Some((site["metadata"]["name"].as_str()?, site["status"]["observedGeneration"].as_u64()?)))
        .collect();
    let is_open = |(name, generation): &(&String, &u64)| shown.get(name.as_str()).is_none_or(|g| g < *generation);
    wanted.iter().filter(is_open).map(|(name, _)| name.as_str()).collect()
}

/// Changes one Website after another until it is dropped.
pub(crate) async fn run(objects: &Objects, websites: usize, wishes: &Arc<Mutex<Wishes>>) {
    let mut tick = tokio::time::interval(PACE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for edition in 1_u64.. {
        tick.tick().await;
        let name = scene::name(fastrand::usize(usize::from(websites > 1)..websites));
        if wishes.lock().spared.as_ref() == Some(&name) {
            continue;
        }
        let title = format!("Edition {edition} of {name}");
        let now = Instant::now();
        let patch = json!({ "spec": { "title": title } });
        let website = match objects.merge(&scene::website(&name), &patch).await {
            Ok(website) => website,
            // One that somebody deleted is no wish of ours.
            Err(error) => {
                wishes.lock().fail(format!("{name}: {error}"));
                continue;
            }
        };
        if let Some(generation) = website["metadata"]["generation"].as_u64() {
            wishes.lock().ask(now, &name, generation, title);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn website(name: &str, shown: u64) -> Value {
        json!({ "metadata": { "name": name }, "status": { "observedGeneration": shown } })
    }

    #[test]
    fn a_wish_waits_from_its_first_change_until_the_last_is_shown() {
        let (mut wishes, start) = (Wishes::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        wishes.ask(at(0), "a", 2, "A2".to_owned());
        wishes.ask(at(1), "b", 2, "B2".to_owned());
        wishes.ask(at(2), "a", 3, "A3".to_owned());
        let seen = [website("a", 2), website("b", 2)];
        assert_eq!(forgotten(&wishes.snapshot(), &seen), ["a"]);
        wishes.see(at(3), &seen);
        assert_eq!((wishes.waiting(at(3)), wishes.longest()), ((1, Duration::from_secs(3)), Duration::from_secs(2)));
        wishes.begin_span();
        assert_eq!(wishes.span(at(4)), Duration::from_secs(4));
        let gone = wishes.snapshot();
        assert_eq!(forgotten(&gone, &[]), ["a"]);
        wishes.see(at(5), &[website("a", 3)]);
        assert_eq!((wishes.waiting(at(9)), wishes.longest()), ((0, Duration::ZERO), Duration::from_secs(5)));
        assert_eq!(wishes.span(at(9)), Duration::from_secs(5));
        assert_eq!((wishes.made(), wishes.titles()["a"].as_str()), (3, "A3"));
        assert!(forgotten(&gone, &[website("a", 4)]).is_empty());
    }

    #[test]
    fn a_load_that_hardly_was_proves_nothing() {
        let mut wishes = Wishes::default();
        let none = wishes.too_few(Duration::ZERO).unwrap();
        assert!(
            none.starts_with("only 0 changes were made in 0 s") && none.ends_with("1 are needed; 0 failed"),
            "{none}"
        );
        wishes.fail("a: it is gone".to_owned());
        // There is time for 20 changes in a second.
        let (full, now) = (Duration::from_secs(20), Instant::now());
        for change in 0..99 {
            wishes.ask(now, "a", change, String::new());
        }
        let few = wishes.too_few(full).unwrap();
        assert!(few.contains("99 changes were made in 20 s"), "{few}");
        assert!(few.ends_with("100 are needed; 1 failed, the last one: a: it is gone"), "{few}");
        wishes.ask(now, "a", 99, String::new());
        assert_eq!(wishes.too_few(full), None);
    }
}
