//! The addresses of a server, and the way from a request to its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;
use zerosearch_generate::Stream;

use crate::config::ServerConfig;
use crate::metrics::Metrics;
use crate::openai::{self, Api};
use crate::queue::{Job, Queue, SearchJob};
use crate::refusal::{Refusal, respond};
use crate::retrieve::Retrieval;
use crate::service::{Service, draw_quality};

/// The known addresses. Others are counted together, or anybody could make metrics without end.
const ROUTES: [&str; 6] = ["/retrieve", "/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics"];

/// A client that sends its body more slowly than this is refused.
const BODY_TIME: Duration = Duration::from_secs(60);

/// All that requests and workers share.
pub(crate) struct Shared {
    pub(crate) config: ServerConfig,
    pub(crate) service: Service,
    pub(crate) queue: Queue,
    pub(crate) metrics: Metrics,
    open_requests: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(config: ServerConfig, service: Service) -> Self {
        let queue = Queue::new(config.queue);
        Self { config, service, queue, metrics: Metrics::default(), open_requests: AtomicUsize::new(0) }
    }
}

type Shares = State<Arc<Shared>>;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/retrieve", post(retrieve))
        .route("/v1/chat/completions", post(|shares: Shares, request: Request| complete(shares, request, Api::Chat)))
        .route("/v1/completions", post(|shares: Shares, request: Request| complete(shares, request, Api::Completions)))
        .route("/v1/models", get(models))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(shared.config.max_body_bytes))
        .layer(from_fn_with_state(shared.clone(), count))
        .with_state(shared)
}

/// Counts a request and its time, and refuses it where too many are under way.
async fn count(State(shared): Shares, request: Request, next: Next) -> Response {
    struct Open<'c>(&'c AtomicUsize);

    impl Drop for Open<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    let (began, path) = (Instant::now(), request.uri().path());
    let route = ROUTES.into_iter().find(|route| *route == path).unwrap_or("other");
    let others = shared.open_requests.fetch_add(1, Ordering::Relaxed);
    let _open = Open(&shared.open_requests);
    let is_work = !matches!(route, "/health" | "/metrics");
    let config = &shared.config;
    let response = if is_work && others >= config.queue + config.concurrency * config.batch() {
        let refusal = Refusal::too_busy(others);
        if route.starts_with("/v1") { refusal.into_error() } else { refusal.into_detail(Map::new()) }
    } else {
        next.run(request).await
    };
    shared.metrics.request(route, response.status().as_u16(), began.elapsed());
    response
}

async fn retrieve(State(shared): Shares, request: Request) -> Response {
    let retrieval = match body(&shared, request).await.and_then(|body| Retrieval::read(&body, &shared.config)) {
        Ok(retrieval) => retrieval,
        Err(refusal) => return refusal.into_detail(Map::new()),
    };
    let (seeds, jobs) = searches(&shared, &retrieval);
    let (jobs, replies): (Vec<Job>, Vec<_>) = jobs
        .into_iter()
        .map(|job| {
            let (reply, answer) = oneshot::channel();
            (Job::Search(job, reply), answer)
        })
        .unzip();
    let outcome = wait(&shared, jobs, replies).await;
    if let Ok(results) = &outcome {
        results.iter().for_each(|result| shared.metrics.searched(result.as_ref().ok().map(Vec::len)));
    }
    // Search-R1's client looks for `result` whatever the status says; without it a training run would end.
    let without = |refusal: Refusal, error: &str| {
        let nothing = vec![Err(error.to_string()); retrieval.searches.len()];
        refusal.into_detail(retrieval.answer(&seeds, &nothing))
    };
    match outcome {
        Err(refusal) => {
            let message = refusal.message.clone();
            without(refusal, &message)
        }
        Ok(results) => match results.iter().find_map(|result| result.as_ref().err()) {
            Some(error) if results.iter().all(Result::is_err) => {
                let refusal = Refusal::bad_engine(format!("the engine failed: {error}"));
                refusal.into_detail(retrieval.answer(&seeds, &results))
            }
            _ => respond(StatusCode::OK, &Value::Object(retrieval.answer(&seeds, &results))),
        },
    }
}

/// The searches of a request, with a seed and a quality for each. What a request does not say depends on its number.
fn searches(shared: &Shared, retrieval: &Retrieval) -> (Vec<u64>, Vec<SearchJob>) {
    let first = shared.service.count(retrieval.searches.len());
    let jobs = retrieval.searches.iter().zip(first..).map(|(asked, call)| {
        let own = || Stream { seed: shared.config.seed, purpose: "call", step: call, ..Stream::default() }.value();
        let seed = asked.seed.unwrap_or_else(own);
        let noise = asked.noise_probability.unwrap_or_else(|| shared.service.noise_at(call));
        let quality = draw_quality(seed, noise);
        shared.metrics.search(quality);
        SearchJob {
            query: asked.query.clone(),
            top_k: retrieval.top_k,
            // Nothing else is known that the user may want to know.
            question: asked.question.clone().unwrap_or_else(|| asked.query.clone()),
            answers: asked.answers.clone(),
            quality,
            seed,
        }
    });
    jobs.map(|job| (job.seed, job)).unzip()
}

async fn complete(State(shared): Shares, request: Request, api: Api) -> Response {
    match completed(&shared, request, api).await {
        Ok(answer) => respond(StatusCode::OK, &answer),
        Err(refusal) => refusal.into_error(),
    }
}

async fn completed(shared: &Shared, request: Request, api: Api) -> Result<Value, Refusal> {
    let Some((name, _)) = &shared.service.model else {
        let message = "there is no language model here: this server answers /retrieve; `serve --simulator DIR` has one";
        return Err(Refusal { status: StatusCode::NOT_FOUND, message: message.into() });
    };
    let body = body(shared, request).await?;
    let call = shared.service.count_completion();
    let requests = openai::read(&body, api, shared.config.seed, call)?;
    let (jobs, replies) = requests
        .iter()
        .map(|request| {
            let (reply, answer) = oneshot::channel();
            (Job::Complete(request.clone(), reply), answer)
        })
        .unzip();
    let results = wait(shared, jobs, replies).await?;
    results.iter().for_each(|result| shared.metrics.completed(result.as_ref().ok().map(|it| it.tokens)));
    let completions = results.into_iter().collect::<Result<Vec<_>, _>>().map_err(Refusal::bad_engine)?;
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(openai::answer(api, name, call, &requests, &completions, created))
}

/// Puts a request's jobs into the queue, and waits for all of them.
async fn wait<T>(
    shared: &Shared,
    jobs: Vec<Job>,
    replies: Vec<oneshot::Receiver<Result<T, String>>>,
) -> Result<Vec<Result<T, String>>, Refusal> {
    shared.queue.offer(jobs).map_err(Refusal::too_busy)?;
    let all = async {
        let mut results = Vec::with_capacity(replies.len());
        for reply in replies {
            results.push(reply.await.unwrap_or_else(|_| Err("the server was stopped".into())));
        }
        results
    };
    let seconds = shared.config.timeout_s;
    timeout(Duration::from_secs(seconds), all).await.map_err(|_| Refusal::too_late(seconds))
}

/// The JSON in a request.
async fn body(shared: &Shared, request: Request) -> Result<Value, Refusal> {
    let refused = |status, message: String| Refusal { status, message };
    let bytes = match timeout(BODY_TIME, Bytes::from_request(request, &())).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let most = shared.config.max_body_bytes;
            let message = format!(
                "the body has more than {most} bytes (`max_body_bytes` of the server); send fewer queries at once"
            );
            return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        Ok(Err(rejection)) => return Err(refused(rejection.status(), rejection.body_text())),
        Err(_) => {
            let message = format!("the body did not come within {} s", BODY_TIME.as_secs());
            return Err(refused(StatusCode::REQUEST_TIMEOUT, message));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| Refusal::unprocessable(format!("the body is no JSON: {error}")))
}

async fn models(State(shared): Shares) -> Response {
    let model =
        |(name, _): &(String, _)| json!({"id": name, "object": "model", "created": 0, "owned_by": "zerosearch"});
    let models: Vec<Value> = shared.service.model.iter().map(model).collect();
    respond(StatusCode::OK, &json!({"object": "list", "data": models}))
}

async fn health() -> Response {
    respond(StatusCode::OK, &json!({"status": "ok"}))
}

async fn metrics(State(shared): Shares) -> Response {
    let text = shared.metrics.text(shared.queue.len(), shared.service.noise_now());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn unknown(request: Request) -> Response {
    let message = format!("there is no {}; there are {}", request.uri().path(), ROUTES.join(", "));
    Refusal { status: StatusCode::NOT_FOUND, message }.into_detail(Map::new())
}

async fn wrong_method(request: Request) -> Response {
    let (path, method) = (request.uri().path(), request.method());
    let message = format!("{path} does not take {method}; /retrieve and completions take POST, the others GET");
    Refusal { status: StatusCode::METHOD_NOT_ALLOWED, message }.into_detail(Map::new())
}
