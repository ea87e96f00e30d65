//! Containers that Docker has given up on: it came up while we were away, waited 15 s for each, and does not try again. Once both
//! are up, those that should run by their restart policy are started, a few times each, and then left to a person.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use weft_api::id::NetworkId;
use weft_docker_engine::{Engine, Stranded};

use crate::book::Book;
use crate::docker::Docker;
use crate::networks::Present;

/// Docker tells no event when it gives up.
const EVERY: Duration = Duration::from_secs(30);

/// While one waits for its network, or for its next try.
const SOON: Duration = Duration::from_secs(1);

/// A container is started so often for one start of the engine, whether it then runs or not.
const TRIES: u32 = 5;

/// Between the first try and the second; each further pause is twice as long.
const PAUSE: Duration = Duration::from_secs(2);

/// Containers whose tries are counted; further ones are left alone.
const MAX_COUNTED: usize = 1024;

/// Starts what is stranded, in a task of its own, until the process ends. What does not run yet, or for good, a sentence each.
pub fn keep(
    book: Arc<Book>,
    docker: watch::Receiver<Docker>,
    present: watch::Receiver<Present>,
) -> watch::Receiver<Vec<String>> {
    let (tell, told) = watch::channel(Vec::new());
    tokio::spawn(Keeper { book, docker, present, tell, tries: Tries::default() }.run());
    told
}

struct Keeper {
    book: Arc<Book>,
    docker: watch::Receiver<Docker>,
    present: watch::Receiver<Present>,
    tell: watch::Sender<Vec<String>>,
    tries: Tries,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let engine = self.docker.borrow_and_update().engine().cloned();
            let wake = match engine {
                Some(engine) => self.look(&engine).await,
                None => {
                    self.say(&[]);
                    EVERY
                }
            };
            tokio::select! {
                changed = self.docker.changed() => match changed {
                    Ok(()) => self.tries = Tries::default(),
                    Err(_ended) => return,
                },
                () = tokio::time::sleep(wake) => {}
            }
        }
    }

    /// One look; when the next is due.
    async fn look(&mut self, engine: &Engine) -> Duration {
        let networks: BTreeMap<String, NetworkId> = self
            .book
            .networks_here()
            .into_iter()
            .flat_map(|network| self.book.docker_ids(network.id).into_iter().map(move |id| (id, network.id)))
            .collect();
        let ids: Vec<String> = networks.keys().cloned().collect();
        let mut stranded = match engine.stranded(&ids).await {
            Ok(stranded) => stranded,
            Err(e) => {
                tracing::debug!(error = %e, "who is stranded cannot be asked");
                return EVERY;
            }
        };
        self.say(&stranded);
        let ready = self.present.borrow().ready.clone();
        for container in self.tries.due(&stranded, &networks, &ready, Instant::now()) {
            match engine.start(&container.id).await {
                Ok(()) => {
                    tracing::info!(container = %container.name, why = %container.why, "started a container that Docker had given up on");
                    stranded.retain(|other| other.id != container.id);
                }
                Err(e) => {
                    tracing::warn!(container = %container.name, error = %e, "a container that Docker had given up on does not start");
                }
            }
        }
        self.say(&stranded);
        if stranded.iter().any(|container| self.tries.left(&container.id)) { SOON } else { EVERY }
    }

    fn say(&self, stranded: &[Stranded]) {
        let sentences: Vec<String> =
            stranded.iter().map(|container| sentence(container, self.tries.left(&container.id))).collect();
        self.tell.send_if_modified(|told| {
            let news = *told != sentences;
            *told = sentences;
            news
        });
    }
}

/// What is wrong with a container, and what to do if it is not started `again`.
fn sentence(Stranded { name, why, .. }: &Stranded, again: bool) -> String {
    let next = if again {
        "weft starts it again".to_owned()
    } else {
        format!("weft has tried {TRIES} times, so find out why, then docker start {name}")
    };
    format!("container {name} does not run, since Docker could not connect it ({why}): {next}")
}

/// How often each container was started since the engine came up, and not before when it is next.
#[derive(Debug, Default)]
struct Tries(BTreeMap<String, (u32, Option<Instant>)>);

impl Tries {
    /// The containers to start at `now`, which are counted: those whose networks of the mesh are all `ready`.
    fn due(
        &mut self,
        stranded: &[Stranded],
        networks: &BTreeMap<String, NetworkId>,
        ready: &BTreeSet<NetworkId>,
        now: Instant,
    ) -> Vec<Stranded> {
        let connects = |container: &&Stranded| {
            container.networks.iter().filter_map(|id| networks.get(id)).all(|network| ready.contains(network))
        };
        let mut due = Vec::new();
        for container in stranded.iter().filter(connects) {
            if !self.0.contains_key(&container.id) && self.0.len() >= MAX_COUNTED {
                continue;
            }
            let (tries, next) = self.0.entry(container.id.clone()).or_default();
            if *tries < TRIES && next.is_none_or(|next| next <= now) {
                *next = Some(now + PAUSE * 2_u32.pow(*tries));
                *tries += 1;
                due.push(container.clone());
            }
        }
        due
    }

    /// Whether the container will be started again.
    fn left(&self, id: &str) -> bool {
        self.0.get(id).map_or(self.0.len() < MAX_COUNTED, |(tries, _)| *tries < TRIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranded(id: &str) -> Stranded {
        let networks = ["red", "bridge"].map(str::to_owned).to_vec();
        Stranded { id: id.into(), name: id.into(), networks, why: "plugin \"weft\" not found".into() }
    }

    #[test]
    fn a_container_is_started_a_few_times_and_ever_more_slowly() {
        let (mut tries, start) = (Tries::default(), Instant::now());
        let networks = BTreeMap::from([("red".to_owned(), NetworkId(1))]);
        let ready = BTreeSet::from([NetworkId(1)]);
        let listed = [stranded("aa")];
        assert!(tries.due(&listed, &networks, &BTreeSet::new(), start).is_empty(), "its network is not up");
        let mut at = Vec::new();
        for second in 0..1000 {
            let now = start + Duration::from_secs(second);
            if !tries.due(&listed, &networks, &ready, now).is_empty() {
                at.push(second);
            }
        }
        assert_eq!(at, [0, 2, 6, 14, 30]);
        assert!(!tries.left("aa") && tries.left("bb"));
        assert_eq!(
            sentence(&listed[0], tries.left("aa")),
            "container aa does not run, since Docker could not connect it (plugin \"weft\" not found): \
             weft has tried 5 times, so find out why, then docker start aa"
        );
    }

    #[test]
    fn the_count_is_bounded() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        let many: Vec<Stranded> = (0..2 * MAX_COUNTED).map(|n| stranded(&n.to_string())).collect();
        let due = tries.due(&many, &BTreeMap::new(), &BTreeSet::new(), now);
        assert_eq!((due.len(), tries.0.len()), (MAX_COUNTED, MAX_COUNTED));
        assert!(!tries.left("another"));
    }
}
