//! What happens to networks of driver `weft` and to containers, as it happens. Docker forgets a subscriber at the
//! least trouble: the stream here subscribes again, and says when the reader must list anew.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Sender};

use crate::Engine;
use crate::network::DRIVER;

/// Events that wait for their reader. When full, events are thrown away, and an [`Event::Resync`] stands for them.
pub const EVENT_QUEUE: usize = 1024;

/// How long after the end of a subscription the next is tried.
const AGAIN: Duration = Duration::from_millis(500);

/// Something happened. Ids and names are Docker's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Whatever was known may be out of date: list again. The first event, and one after each gap.
    Resync,
    /// The engine does not answer; [`Event::Resync`] follows when it does.
    Away,
    /// A network of driver `weft` was made.
    NetworkCreated {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
    /// A network of driver `weft` was removed.
    NetworkDestroyed {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
    /// A container was connected to a network of driver `weft`; also at each start of the container.
    Connected {
        /// The network's id.
        network: String,
        /// The container's id.
        container: String,
    },
    /// A container was disconnected from a network of driver `weft`; also at each end of the container.
    Disconnected {
        /// The network's id.
        network: String,
        /// The container's id.
        container: String,
    },
    /// A container runs.
    ContainerStarted {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
    /// A container has ended.
    ContainerDied {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
    /// A container has another name.
    ContainerRenamed {
        /// Its id.
        id: String,
        /// Its new name.
        name: String,
    },
    /// A container was removed.
    ContainerDestroyed {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
}

impl Engine {
    /// Events from now on, until the receiver is dropped. Needs a tokio runtime.
    #[must_use]
    pub fn events(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        tokio::spawn(subscribe(self.clone(), sender));
        receiver
    }
}

async fn subscribe(engine: Engine, sender: Sender<Event>) {
    loop {
        // Docker keeps its last events: what happens between the reader's list and the subscription is not lost.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if engine.ping().await.is_ok() {
            if sender.send(Event::Resync).await.is_err() || pass_on(&engine, since, &sender).await.is_break()
            {
                return;
            }
            // No room for this? Then the reader sees the Resync that comes when the engine is back, and fails to list.
            let _full = sender.try_send(Event::Away);
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = sender.closed() => return,
        }
    }
}

/// Passes events on until the subscription ends, or (`Break`) the reader is gone.
async fn pass_on(engine: &Engine, since: u64, sender: &Sender<Event>) -> ControlFlow<()> {
    let filters = HashMap::from([("type", vec!["network", "container"])]);
    let options = EventsOptionsBuilder::default().since(&since.to_string()).filters(&filters).build();
    let mut stream = std::pin::pin!(engine.docker.events(Some(options)));
    let mut gap = false;
    loop {
        let message = tokio::select! {
            message = stream.next() => message,
            () = sender.closed() => return ControlFlow::Break(()),
            permit = sender.reserve(), if gap => {
                let Ok(permit) = permit else { return ControlFlow::Break(()) };
                permit.send(Event::Resync);
                gap = false;
                continue;
            }
        };
        match message {
            Some(Ok(message)) => {
                if let (false, Some(event)) = (gap, read(message)) {
                    gap = matches!(sender.try_send(event), Err(TrySendError::Full(_)));
                }
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "Docker's event stream broke");
                return ControlFlow::Continue(());
            }
            None => return ControlFlow::Continue(()),
        }
    }
}

pub(crate) fn read(message: EventMessage) -> Option<Event> {
    let actor = message.actor?;
    let (id, mut attributes) = (actor.id?, actor.attributes.unwrap_or_default());
    let name = attributes.remove("name").unwrap_or_default();
    let action = message.action?;
    match message.typ? {
        EventMessageTypeEnum::NETWORK if attributes.get("type").is_some_and(|driver| driver == DRIVER) => {
            let mut container = || attributes.remove("container");
            match action.as_str() {
                "create" => Some(Event::NetworkCreated { id, name }),
                "destroy" => Some(Event::NetworkDestroyed { id, name }),
                "connect" => Some(Event::Connected { network: id, container: container()? }),
                "disconnect" => Some(Event::Disconnected { network: id, container: container()? }),
                _ => None,
            }
        }
        EventMessageTypeEnum::CONTAINER => match action.as_str() {
            "start" => Some(Event::ContainerStarted { id, name }),
            "die" => Some(Event::ContainerDied { id, name }),
            "rename" => Some(Event::ContainerRenamed { id, name: name.trim_start_matches('/').to_owned() }),
            "destroy" => Some(Event::ContainerDestroyed { id, name }),
            _ => None,
        },
        _ => None,
    }
}
