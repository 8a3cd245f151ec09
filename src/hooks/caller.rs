//! Whoever makes a call: asked before each try, and told what became of it and of the connections that it made.
//!
//! Never tells of a connection that is made for nobody, as a probe's is, or that is there only after its try has ended.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Whoever makes a call.
pub trait Caller: Sync {
    /// Whether the call may still be sent, now that its turn has come.
    fn may_send(&self) -> bool;
    /// Resolves once the call isn't wanted any more, if it hasn't begun.
    fn withdrawn(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    /// A try ended: the code of the answer, 0 without one, and how long it took.
    fn tried(&self, code: u16, took: Duration);
    /// A try runs from now on, or doesn't any more, whether it ended or was given up.
    fn running(&self, _runs: bool) {}
    /// A connection was made for a try: when it came to this step, from the begin of the try.
    fn connected(&self, _step: ConnectStep, _after: Duration) {}
}

/// A step on the way to a new connection. A name that is an address isn't looked up, and without TLS there is no handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectStep {
    /// The name begins to be looked up.
    DnsStart,
    /// It was.
    DnsDone,
    /// The handshake of TLS begins.
    TlsStart,
    /// It succeeded.
    TlsDone,
}

impl ConnectStep {
    const ALL: [Self; 4] = [Self::DnsStart, Self::DnsDone, Self::TlsStart, Self::TlsDone];
}

/// When a try came to each step first.
pub(crate) struct Steps {
    began: Instant,
    at: Mutex<[Option<Duration>; ConnectStep::ALL.len()]>,
}

tokio::task_local! {
    /// Those of the try that runs. Clients share connections between calls: this is how one that is made knows for whom.
    static STEPS: Arc<Steps>;
}

impl Steps {
    /// Those of the try that this is done for, if it is for one.
    pub(crate) fn present() -> Option<Arc<Self>> {
        STEPS.try_with(Arc::clone).ok()
    }

    /// It came to this step now.
    pub(crate) fn note(&self, step: ConnectStep) {
        let after = self.began.elapsed();
        self.at.lock()[step as usize].get_or_insert(after);
    }
}

/// A try that runs; told of its end when it is dropped.
struct Running<'a>(&'a dyn Caller);

impl<'a> Running<'a> {
    fn begin(caller: &'a dyn Caller) -> Self {
        caller.running(true);
        Self(caller)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running(false);
    }
}

/// Runs a try, and tells its caller of it.
pub(crate) async fn observed<T>(caller: &dyn Caller, work: impl Future<Output = T>) -> T {
    let _running = Running::begin(caller);
    let steps = Arc::new(Steps { began: Instant::now(), at: Mutex::default() });
    let ended = STEPS.scope(Arc::clone(&steps), work).await;
    let at = *steps.at.lock();
    for (step, after) in ConnectStep::ALL.into_iter().zip(at) {
        if let Some(after) = after {
            caller.connected(step, after);
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard {
        running: Mutex<Vec<bool>>,
        steps: Mutex<Vec<(ConnectStep, Duration)>>,
    }

    impl Caller for Heard {
        fn may_send(&self) -> bool {
            true
        }

        fn withdrawn(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(std::future::pending())
        }

        fn tried(&self, _: u16, _: Duration) {}

        fn running(&self, runs: bool) {
            self.running.lock().push(runs);
        }

        fn connected(&self, step: ConnectStep, after: Duration) {
            self.steps.lock().push((step, after));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_is_told_with_the_steps_of_its_connection() {
        let heard = Heard::default();
        let work = async {
            let steps = Steps::present().unwrap();
            steps.note(ConnectStep::DnsStart);
            tokio::time::sleep(Duration::from_millis(5)).await;
            steps.note(ConnectStep::DnsDone);
            tokio::time::sleep(Duration::from_millis(5)).await;
            // A second one for the same try: the first counts.
            steps.note(ConnectStep::DnsStart);
            7
        };
        assert_eq!(observed(&heard, work).await, 7);
        assert_eq!(*heard.running.lock(), [true, false]);
        let steps = heard.steps.lock();
        let done = steps[1].1;
        assert_eq!((steps[0].0, steps[1].0, steps.len()), (ConnectStep::DnsStart, ConnectStep::DnsDone, 2));
        assert!(steps[0].1 < done && done >= Duration::from_millis(5), "{steps:?}");
        assert!(Steps::present().is_none(), "nobody's");
    }

    #[tokio::test]
    async fn one_that_is_given_up_runs_no_more() {
        let heard = Heard::default();
        let never = observed(&heard, std::future::pending::<()>());
        assert!(tokio::time::timeout(Duration::from_millis(1), never).await.is_err());
        assert_eq!(*heard.running.lock(), [true, false]);
    }
}
