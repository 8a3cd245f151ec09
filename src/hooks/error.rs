//! Why a hook call failed, classed by method.
//!
//! Never holds a reply's text whole: an excerpt goes to the log, not into a status or an event.

use std::time::Duration;

/// A failed call. The URL is the caller's to add.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL can't be used, or the rules forbid it.
    #[error("{0}")]
    Address(String),
    /// The host's name doesn't resolve.
    #[error("{host} does not resolve: {problem}")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said.
        problem: String,
    },
    /// No connection.
    #[error("can't connect: {problem}")]
    Connect {
        /// What the operating system or TLS said.
        problem: String,
        /// Nobody listens there.
        refused: bool,
    },
    /// A connection, but not one by TLS.
    #[error(
        "no TLS connection: {0}; https needs a server that speaks it, with a certificate for the URL's host from an \
         authority that webhook.caBundle names, or without it the system trusts"
    )]
    Tls(String),
    /// A connection that was there ended before anything of the request was sent.
    #[error("the connection ended before the request was sent: {0}")]
    NotSent(String),
    /// The other side says by HTTP/2 that it did nothing with the request: it has too many.
    #[error("the endpoint refused the request, as it has too many at once")]
    Refused,
    /// The other side ended the connection, and says by HTTP/2 that it did nothing with the request.
    #[error("the endpoint ended the connection before it began with the request")]
    Leaving,
    /// The endpoint was found not to answer anything, and was left out with the call under way.
    #[error("the endpoint answers nothing: neither this call nor others, nor a HEAD beside them")]
    Silent,
    /// There is nothing to call.
    #[error("no endpoint to call: {0}")]
    NoEndpoints(String),
    /// What is needed to connect, or to say who calls, can't be used.
    #[error("{0}")]
    Credentials(String),
    /// Too many calls wait for their turn already.
    #[error("{waiting} calls of this controller wait for their turn at the endpoint already")]
    Busy {
        /// How many.
        waiting: usize,
        /// When it may be tried again.
        after: Duration,
    },
    /// The caller may not send it any more.
    #[error("not sent: the caller lost its right to")]
    Fenced,
    /// The connection broke during the call.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// What came isn't HTTP.
    #[error("the answer is not HTTP: {0}; does the URL name the port of the webhook, and its scheme?")]
    NotHttp(String),
    /// No whole reply in time.
    #[error("no whole reply within {after:?}")]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The reply is large, and others that are held the room for it.
    #[error(
        "no room within {after:?} for a reply above {bytes} bytes: as many as are held at once were being read; large \
         replies that come slowly are the cause"
    )]
    NoRoom {
        /// The limit of the call.
        after: Duration,
        /// From where on a reply is large.
        bytes: usize,
    },
    /// A redirect, which is never followed.
    #[error("the hook answered with a redirect ({code}), which is not followed; name the final URL")]
    Redirect {
        /// HTTP code.
        code: u16,
    },
    /// Any other answer than 200.
    #[error("the hook answered {code}{}", hint(*code))]
    Code {
        /// HTTP code.
        code: u16,
        /// The beginning of the body, for the log.
        excerpt: String,
    },
    /// 429.
    #[error("the hook asks to be called later (429)")]
    Later {
        /// After this long; `None` if it didn't say.
        after: Option<Duration>,
    },
    /// Larger than the limit.
    #[error("the reply is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Its head is larger than the limits.
    #[error("the head of the reply is larger than {bytes} bytes or {headers} headers")]
    HeadTooLarge {
        /// The limit of its size.
        bytes: usize,
        /// The limit of its headers' number.
        headers: usize,
    },
    /// An encoding that wasn't asked for.
    #[error("the reply has Content-Encoding {0}, which was not asked for")]
    Encoding(String),
}

impl Error {
    /// A word for conditions, events and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Address(_) => "AddressRefused",
            Self::Resolve { .. } => "NameNotResolved",
            Self::Connect { refused: true, .. } => "ConnectionRefused",
            Self::Connect { .. } => "ConnectionFailed",
            Self::Tls(_) => "TlsFailed",
            Self::NotSent(_) | Self::Leaving | Self::Broken(_) => "ConnectionBroken",
            Self::Silent => "Silent",
            Self::NoEndpoints(_) => "NoEndpoints",
            Self::Credentials(_) => "BadCredentials",
            Self::Busy { .. } => "Busy",
            Self::Fenced => "Fenced",
            Self::NotHttp(_) => "NotHttp",
            Self::Timeout { .. } => "Timeout",
            Self::NoRoom { .. } => "NoRoom",
            Self::Redirect { .. } => "Redirect",
            Self::Code { .. } => "BadCode",
            Self::Refused | Self::Later { .. } => "TooManyRequests",
            Self::TooLarge { .. } | Self::HeadTooLarge { .. } | Self::Encoding(_) => "BadReply",
        }
    }

    /// The HTTP code of the answer; 0 without one, and for what came with 200 and can't be taken.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::Code { code, .. } | Self::Redirect { code } => *code,
            Self::Later { .. } => 429,
            _ => 0,
        }
    }

    /// The beginning of what an error reply said.
    #[must_use]
    pub fn excerpt(&self) -> &str {
        if let Self::Code { excerpt, .. } = self { excerpt } else { "" }
    }

    /// Whether the webhook was reached and answered in HTTP.
    #[must_use]
    pub fn was_answered(&self) -> bool {
        matches!(
            self,
            Self::Redirect { .. }
                | Self::Code { .. }
                | Self::Later { .. }
                | Self::NoRoom { .. }
                | Self::TooLarge { .. }
                | Self::HeadTooLarge { .. }
                | Self::Encoding(_)
        )
    }

    /// Whether nothing of the request was sent: another endpoint may be asked at once.
    #[must_use]
    pub fn was_not_sent(&self) -> bool {
        self.is_unreachable() || matches!(self, Self::NotSent(_) | Self::Refused | Self::Leaving)
    }

    /// Whether it may say more of this one call, or of the object that it was about, than of the webhook.
    #[must_use]
    pub fn is_of_one_call(&self) -> bool {
        self.was_answered()
            || matches!(
                self,
                Self::NotSent(_)
                    | Self::Refused
                    | Self::Leaving
                    | Self::Silent
                    | Self::Broken(_)
                    | Self::NotHttp(_)
                    | Self::Timeout { .. }
            )
    }

    /// Whether no connection could be made.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Resolve { .. } | Self::Connect { .. } | Self::Tls(_) | Self::Address(_))
    }

    /// Whether the request may have been read, and the endpoint went before it answered. One that only takes too long
    /// isn't among them: others would most likely take as long.
    #[must_use]
    pub fn was_lost(&self) -> bool {
        matches!(self, Self::Silent | Self::Broken(_))
    }

    /// Whether the reply says that only a change of the parent can help (422).
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Code { code: 422, .. })
    }
}

/// What a code that isn't 200 asks whoever reads of it to do.
fn hint(code: u16) -> &'static str {
    match code {
        100..=299 => ", but only 200 with a JSON object is an answer",
        401 | 403 => {
            ": it wants other credentials than it gets; see webhook.authorization, webhook.basicAuth and webhook.clientTLS"
        }
        404 | 405 => ": is the path of webhook.url right, and does it take POST?",
        _ => "; its own log says why, and Ringmaster's shows the beginning of the answer",
    }
}
