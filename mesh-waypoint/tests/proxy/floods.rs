//! Clients in numbers, and such as misuse HTTP/2: what they cost a waypoint and a gateway, beside what good ones cost.

use std::rc::Rc;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use mesh_frames::{END_HEADERS, END_STREAM, Kind, PREFACE, field, frame, request, reset, setting};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::gateway::{GATEWAY, gateway, get as fetch};
use crate::metrics::value;
use crate::server::{Client, serve};
use crate::world::{CARTS, OUTSIDE, WAYPOINT, World, run_program};

const LISTENERS: &str = "{name: http, port: 8000, protocol: HTTP}";
/// How long a flood may go on that nobody stops.
const FLOOD: Duration = Duration::from_secs(4);
/// Connections of each flood.
const AT_ONCE: usize = 24;

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// How clients come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By tunnels, to a waypoint.
    Tunnel,
    /// To a gateway.
    Outside,
}

impl Way {
    async fn connect(self, world: &World) -> Option<Box<dyn Stream>> {
        match self {
            Self::Tunnel => Some(Box::new(world.tunnel("10.96.0.1:95").await.ok()?)),
            Self::Outside => Some(Box::new(TcpStream::connect((WAYPOINT, 8000)).await.ok()?)),
        }
    }

    /// Whether a good client is served.
    async fn serves(self, world: &World) -> bool {
        let stream = self.connect(world).await.expect("a connection");
        let mut client = Client::http1(stream).await;
        let request = Request::get("/").header("host", "cart.shop").body(Full::default()).expect("valid");
        let asked = timeout(Duration::from_secs(10), client.send(request)).await;
        asked.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status() == 200))
    }
}

fn run(way: Way, flags: &'static [&'static str], test: impl AsyncFnOnce(Rc<World>) + Send + 'static) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("more open files");
    let (name, manifests) = match way {
        Way::Tunnel => ("waypoint", String::new()),
        Way::Outside => (GATEWAY, gateway(LISTENERS)),
    };
    run_program(name, flags, &manifests, async move |world| {
        serve(OUTSIDE, 8080, false).await;
        for cart in CARTS {
            serve(cart, 9595, false).await;
        }
        if way == Way::Outside {
            assert_eq!(fetch("http://any.example:8000/", &[]).await.0, "200");
        }
        test(Rc::new(world)).await;
    });
}

/// The most memory that the waypoint has while something goes on, in KiB.
async fn most_memory(world: &World, something: impl Future<Output = ()>) -> u64 {
    let mut most = world.memory();
    let mut something = std::pin::pin!(something);
    loop {
        tokio::select! {
            () = &mut something => return most.max(world.memory()),
            () = sleep(Duration::from_millis(20)) => most = most.max(world.memory()),
        }
    }
}

/// One flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flood {
    /// Requests as they should be, for comparison.
    Good,
    /// Requests that are taken back at once.
    RapidReset,
    /// A header block without end.
    Continuation,
    /// Settings whose acknowledgements nobody reads.
    Settings,
    /// Pings whose answers nobody reads.
    Pings,
    /// Requests whose answers nobody reads, in windows of one octet.
    Untaken,
    /// Requests whose bodies never come.
    Bodiless,
}

impl Flood {
    /// The next frames.
    fn frames(self, round: u32) -> Vec<u8> {
        let stream = 2 * round + 1;
        let head = |flags| frame(Kind::Headers, flags, stream, &request("GET", &[]));
        match self {
            Self::Good | Self::Untaken => head(END_HEADERS | END_STREAM),
            Self::RapidReset => [head(END_HEADERS | END_STREAM), reset(stream)].concat(),
            Self::Continuation if round == 0 => head(0),
            Self::Continuation => frame(Kind::Continuation, 0, 1, &field(b"x", &[b'y'; 8000])),
            Self::Settings => frame(Kind::Settings, 0, 0, &setting(4, 65_536)).repeat(100),
            Self::Pings => frame(Kind::Ping, 0, 0, &[1; 8]).repeat(100),
            Self::Bodiless => head(END_HEADERS),
        }
    }

    /// Whether what comes back is read.
    const fn reads(self) -> bool {
        matches!(self, Self::Good | Self::RapidReset | Self::Continuation | Self::Bodiless)
    }

    /// Streams that may be open at once: more are refused, which is no flood.
    const fn most(self) -> u32 {
        match self {
            Self::Good | Self::Untaken | Self::Bodiless => 250,
            _ => u32::MAX,
        }
    }

    /// One connection's part in it.
    async fn pour(self, stream: Box<dyn Stream>) {
        let (mut read, mut write) = tokio::io::split(stream);
        let window = if self == Self::Untaken { 1 } else { 65_535 };
        let hello = [PREFACE, &frame(Kind::Settings, 0, 0, &setting(4, window))].concat();
        let reads = self.reads();
        let reading = async move {
            let mut scratch = vec![0; 16 << 10];
            while reads && read.read(&mut scratch).await.is_ok_and(|count| count > 0) {}
            std::future::pending::<()>().await;
        };
        let writing = async {
            if write.write_all(&hello).await.is_err() {
                return;
            }
            for round in 0..self.most() {
                if write.write_all(&self.frames(round)).await.is_err() {
                    return;
                }
                // Others have to get a turn on this thread.
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        let _ = timeout(FLOOD, async {
            tokio::select! { () = reading => {}, () = writing => {} }
        })
        .await;
    }
}

async fn flood(world: &Rc<World>, way: Way, how: Flood) -> u64 {
    let pouring = async {
        let mut all = JoinSet::new();
        for _ in 0..AT_ONCE {
            let stream = way.connect(world).await.expect("a connection");
            all.spawn_local(how.pour(stream));
        }
        assert!(way.serves(world).await, "{way:?}: a good client is not served during {how:?}");
        all.join_all().await;
    };
    let most = most_memory(world, pouring).await;
    assert!(way.serves(world).await, "{way:?}: a good client is not served after {how:?}");
    most
}

/// What a flood costs a process of its own, at most.
fn cost(way: Way, how: Flood) -> u64 {
    let (tell, told) = std::sync::mpsc::channel();
    run(way, &[], async move |world| {
        let before = world.memory();
        tell.send(flood(&world, way, how).await.saturating_sub(before)).expect("the test waits");
    });
    told.recv().expect("a number")
}

fn floods(way: Way) {
    let control = cost(way, Flood::Good);
    println!("{way:?}: good clients cost {control} KiB");
    let floods =
        [Flood::RapidReset, Flood::Continuation, Flood::Settings, Flood::Pings, Flood::Untaken, Flood::Bodiless];
    for how in floods {
        let most = cost(way, how);
        println!("{way:?}: {how:?} costs {most} KiB");
        assert!(most < control + (32 << 10), "{way:?}: {how:?} costs {most} KiB, and good clients {control}");
    }
}

#[test]
fn floods_cost_a_waypoint_no_more_memory_than_good_clients() {
    floods(Way::Tunnel);
}

#[test]
fn floods_cost_a_gateway_no_more_memory_than_good_clients() {
    floods(Way::Outside);
}

/// Beyond 4096 on a thread they are asked to leave soon; how soon, the limit says.
fn crowd(way: Way, count: usize, most: u64) {
    run(way, &["--idle-timeout", "600"], async move |world| {
        let before = world.memory();
        let mut held = Vec::new();
        for _ in 0..count {
            held.push(way.connect(&world).await.expect("a connection"));
        }
        assert!(way.serves(&world).await, "{way:?}: a good client is not served beside {count} idle ones");
        let grown = world.memory().saturating_sub(before);
        println!("{way:?}: {count} idle connections {grown} KiB");
        assert!(grown < most, "{way:?}: {count} idle connections cost {grown} KiB");
        if count > 8192 {
            let ends = async |mut stream: Box<dyn Stream>| {
                while stream.read(&mut [0; 16]).await.is_ok_and(|count| count > 0) {}
            };
            let mut all = JoinSet::new();
            held.into_iter().for_each(|stream| drop(all.spawn_local(ends(stream))));
            while value("mesh_waypoint_clients_cut_total", &[("reason", "idle")]).await < 100.0 {
                all.join_next().await;
            }
            assert!(way.serves(&world).await);
        }
    });
}

#[test]
fn idle_connections_cost_a_gateway_little_and_leave_when_they_are_many() {
    crowd(Way::Outside, 10_000, 96 << 10);
}

#[test]
fn idle_connections_cost_a_waypoint_little() {
    crowd(Way::Tunnel, 4000, 96 << 10);
}
