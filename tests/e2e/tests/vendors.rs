//! Marketo and Adobe for stacks that a test starts itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use doubles::marketo::{self, Marketo};
use doubles::{Shared, adobe, adobe::Adobe, system_clock};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use world::World;

/// Factor on every time-out, rate and window of stacks that a test starts itself, as `cargo run` has it.
pub const TIME_SCALE: f64 = 0.05;
/// Of both doubles. They guard nothing.
const CLIENT: (&str, &str) = ("sample-client", "sample-secret");
/// Leads of the doubles were created ten days before the start; the extract begins some days earlier.
const EXTRACT_BACK_MS: u64 = 14 * 86_400_000;

/// Doubles of both vendors over a world, in the test: they forget nothing because a stack dies.
pub struct Vendors {
    pub marketo: Arc<Shared<Marketo>>,
    /// Parameters of a stack that speaks with them.
    pub parameters: BTreeMap<String, String>,
    /// Aborted when dropped.
    _servers: JoinSet<()>,
}

impl Vendors {
    pub async fn of(world: &World) -> Self {
        let now = system_clock();
        let (id, secret) = (CLIENT.0.to_owned(), CLIENT.1.to_owned());
        let settings = marketo::Settings {
            time_scale: TIME_SCALE,
            client_id: id.clone(),
            client_secret: secret.clone(),
            ..marketo::Settings::default()
        };
        let marketo = Shared::new(Marketo::new(settings, world.marketo.clone(), now()), now.clone());
        let org_id = world.marketo.org_id.clone();
        let settings = adobe::Settings { client_id: id, client_secret: secret, org_id, ..adobe::Settings::default() };
        let adobe = Shared::new(Adobe::new(settings, world.library.clone(), now()), now);
        let mut servers = JoinSet::new();
        let mut serve = async |router| {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
            let url = format!("http://{}", listener.local_addr().expect("an address"));
            servers.spawn(doubles::serve(listener, router));
            url
        };
        let marketo_url = serve(doubles::marketo_router(Arc::clone(&marketo))).await;
        // Nobody presses the button that delivers a file.
        let deliver: doubles::Deliver = Arc::new(|_, _| Box::pin(async { Err("no".to_owned()) }));
        let adobe_url = serve(doubles::adobe_router(adobe, deliver)).await;
        let time_scale = TIME_SCALE.to_string();
        let parameters = [
            ("TimeScale", time_scale.as_str()),
            ("Auth", "none"),
            ("MarketoBaseUrl", &marketo_url),
            ("MarketoClientId", CLIENT.0),
            ("MarketoClientSecret", CLIENT.1),
            ("AdobeImsUrl", &adobe_url),
            ("AdobeAamUrl", &adobe_url),
            ("AdobeAepUrl", &adobe_url),
            ("AdobeAepFoldersUrl", &adobe_url),
            ("AdobeAepSandbox", ""),
            ("AdobeClientId", CLIENT.0),
            ("AdobeClientSecret", CLIENT.1),
            // The world has dates of its own: its matches do not grow old with the machine's clock.
            ("MatchLifetimeDays", "36500"),
        ];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { marketo, parameters, _servers: servers }
    }

    /// `extract_since` of the subscription: all leads are in the first extract.
    pub fn extract_since(&self) -> String {
        let since = i64::try_from(self.marketo.now_ms() - EXTRACT_BACK_MS).expect("a time");
        jiff::Timestamp::from_millisecond(since).expect("a time").to_string()
    }
}
