//! The function: which route a request is for, and a stream's message from the proof to the queue.

use std::sync::Arc;

use domain::MunchkinId;
use domain::said::Saying;
use lambda::{Counts, HttpEvent};
use ports::{Queue, StreamSecret};
use state::Deps;
use state::feeds::{Feed, Kind};

use crate::answer::{Answer, busy, problem};
use crate::events::outgoing;
use crate::proof::Proof;
use crate::token;
use crate::warm::{Doors, GOOD_MS, RECHECK_MS, Warm, within};

/// Largest body, in bytes. Lambda takes 6 MB an event; Adobe's messages hold 10 users at most.
const BODY_MOST: usize = 5 * 1024 * 1024;
/// What a request may take, in ms: Experience Platform hangs up after 2 s, Audience Manager after 3 s. An answer that comes
/// later is one that nobody hears, and the message comes again anyway.
const PATIENCE_MS: u64 = 1_800;
/// The field of Audience Manager's messages that carries the ECID where the feed says nothing: the id of the destination's
/// own data source. `AAM_UUID` has as many digits and is another id.
const ECID_FIELD: &str = "DataPartner_UUID";

// What becomes of entries and messages, among the counts of the invocation.

/// Entries that are in the queue.
const TAKEN: &str = "events_taken";
/// Entries about audiences that are not mapped.
const IGNORED: &str = "events_ignored";
/// Entries that could not be taken.
const REJECTED: &str = "events_rejected";
/// Requests without a proof, or with a wrong one.
const REFUSED_PROOF: &str = "events_refused_proof";
/// Messages of which nothing could be read.
const UNREADABLE: &str = "events_unreadable";
/// Messages that could not be made durable.
const LOST: &str = "events_lost";

/// The function in one process, with what it remembers. Cheap to clone; one a process.
#[derive(Debug, Clone)]
pub struct Receiver {
    deps: Deps,
    warm: Arc<Warm>,
}

/// A feed that a request is for.
struct Found {
    munchkin: MunchkinId,
    feed: Feed,
    /// Why nothing may be taken for the subscription, if so.
    closed: Option<Saying>,
}

impl Found {
    /// The feed's name, with its subscription.
    fn name(&self) -> String {
        format!("{}/{}", self.munchkin, self.feed.id)
    }
}

impl Receiver {
    /// A process that has just begun. The secrets are read now, so that the first message does not wait for them; where
    /// that fails, it reads them itself.
    pub async fn begin(deps: Deps) -> Self {
        let warm = Warm::default();
        warm.secrets(&deps).await;
        Self { deps, warm: Arc::new(warm) }
    }

    /// Answers a request, and counts what became of it.
    pub async fn request(&self, request: &HttpEvent, counts: &Counts) -> Answer {
        let route = request.path.strip_prefix("/feeds/").and_then(|rest| rest.split_once('/'));
        let Some((id, what @ ("events" | "token"))) = route else {
            return problem(404, "Not found", "there is nothing here");
        };
        if request.method != "POST" {
            return problem(405, "Not allowed", "expected POST").with("allow", "POST");
        }
        if request.body.len() > BODY_MOST {
            return problem(413, "Too large", &format!("the body has over {BODY_MOST} bytes"));
        }
        let answered = async {
            if what == "token" { self.token(request, id).await } else { self.events(request, id, counts).await }
        };
        within(&self.deps, PATIENCE_MS, answered).await.unwrap_or_else(|| {
            tracing::error!("a request took too long");
            counts.add(LOST, 1);
            busy()
        })
    }

    /// `POST /feeds/{id}/token`.
    async fn token(&self, request: &HttpEvent, id: &str) -> Answer {
        let mut answer = busy();
        for good_for in [GOOD_MS, RECHECK_MS] {
            let Ok(doors) = self.doors(good_for).await else { return busy() };
            let Some(found) = find(&doors, request, id) else {
                answer = unknown();
                continue;
            };
            let Some(secrets) = self.warm.secrets(&self.deps).await else { return busy() };
            let (name, now) = (found.name(), self.deps.now());
            let none = StreamSecret::default();
            let of = |secrets: &ports::StreamSecrets| {
                let secret = secrets.of(found.munchkin.as_str(), id);
                token::answer(request, secret.unwrap_or(&none), &name, now)
            };
            answer = of(&secrets);
            if answer.status == 401
                && let Some(secrets) = self.warm.secrets_again(&self.deps).await
            {
                answer = of(&secrets);
            }
            break;
        }
        answer
    }

    /// `POST /feeds/{id}/events`. Nothing is parsed before the proof, and nothing is answered 200 before it is in the queue.
    async fn events(&self, request: &HttpEvent, id: &str, counts: &Counts) -> Answer {
        let received_at = self.deps.now();
        let found = match self.admitted(request, id, counts).await {
            Ok(found) => found,
            Err(refused) => return refused,
        };
        let feed = &found.feed;
        let read = if feed.kind == Kind::AamStream {
            feeds::stream::aam(&request.body, feed.ecid_field.as_deref().unwrap_or(ECID_FIELD), received_at)
        } else {
            feeds::stream::aep(&request.body, &feed.audiences, received_at)
        };
        let message = match read {
            Ok(message) => message,
            Err(reason) => {
                counts.add(UNREADABLE, 1);
                tracing::warn!(reason, feed = found.name(), "a stream's message cannot be read");
                return problem(400, "Not a message", &reason);
            }
        };
        let (taken, ignored, rejected) = (message.entries.len(), message.ignored, message.rejected.len());
        let sent = match outgoing(&found.munchkin, &feed.id, received_at, message) {
            Ok(messages) if messages.is_empty() => Ok(()),
            Ok(messages) => self.deps.ports.queues.send(Queue::Events, messages).await.map_err(Into::into),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = sent {
            counts.add(LOST, 1);
            tracing::error!(reason = %failure, "a stream's message cannot be put into the queue");
            return busy();
        }
        for (name, count) in [(TAKEN, taken as u64), (IGNORED, ignored), (REJECTED, rejected as u64)] {
            if count > 0 {
                counts.add(name, count);
            }
        }
        Answer::taken()
    }

    /// The feed, if the request proves that it may send to it and the door is open.
    async fn admitted(&self, request: &HttpEvent, id: &str, counts: &Counts) -> Result<Found, Answer> {
        let mut refused = busy();
        // Perhaps the feed was declared or changed just now.
        for good_for in [GOOD_MS, RECHECK_MS] {
            let doors = self.doors(good_for).await.map_err(|()| {
                counts.add(LOST, 1);
                busy()
            })?;
            refused = match find(&doors, request, id) {
                None => unknown(),
                Some(found) => match self.refused(request, &found).await {
                    None => return Ok(found),
                    Some(refused) => refused,
                },
            };
        }
        match refused.status {
            401 => counts.add(REFUSED_PROOF, 1),
            503 => counts.add(LOST, 1),
            _ => {}
        }
        Err(refused)
    }

    /// Why a request must not be taken, if so.
    async fn refused(&self, request: &HttpEvent, found: &Found) -> Option<Answer> {
        let Some(secrets) = self.warm.secrets(&self.deps).await else { return Some(busy()) };
        let mut refused = self.unproven(request, found, &secrets);
        if refused.is_some()
            && let Some(secrets) = self.warm.secrets_again(&self.deps).await
        {
            refused = self.unproven(request, found, &secrets);
        }
        refused.or_else(|| found.closed.map(|why| problem(403, "Closed", why.english)))
    }

    fn unproven(&self, request: &HttpEvent, found: &Found, secrets: &ports::StreamSecrets) -> Option<Answer> {
        let (feed, name) = (&found.feed, found.name());
        let none = StreamSecret::default();
        let secret = secrets.of(found.munchkin.as_str(), &feed.id).unwrap_or(&none);
        if secret.keys.is_empty() && secret.tokens.is_empty() && secret.clients.is_empty() {
            self.warm.tell_no_secret(&name);
        }
        let proof = Proof::of(feed, secret);
        if proof.is_shown(request, feed, secret, &name, self.deps.now()) {
            return None;
        }
        Some(problem(401, "Not proven", &proof.expected(feed)))
    }

    async fn doors(&self, good_for: u64) -> Result<Arc<Doors>, ()> {
        self.warm.doors(&self.deps, good_for).await.map_err(|failure| {
            tracing::error!(reason = %failure, "a stream's message is not taken: the feeds cannot be read");
        })
    }
}

/// The same whether there is no such feed, it brings files, or the subscription is not to be told.
fn unknown() -> Answer {
    let detail =
        "there is no stream of this name; where there are several subscriptions, the query names one: ?munchkin_id=";
    problem(404, "Not found", detail)
}

/// The feed of this id: of the subscription that the query names, or of the only one.
fn find(doors: &Doors, request: &HttpEvent, id: &str) -> Option<Found> {
    let mut named = form_urlencoded::parse(request.query.as_bytes()).filter(|(name, _)| name == "munchkin_id");
    let (munchkin, (subscription, streams)) = match named.next() {
        Some((_, munchkin)) => doors.get_key_value(&MunchkinId::parse(&munchkin)?)?,
        None => doors.iter().next().filter(|_| doors.len() == 1)?,
    };
    let feed = streams.get(id)?.clone();
    Some(Found { munchkin: munchkin.clone(), feed, closed: subscription.refused() })
}
