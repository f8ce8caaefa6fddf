//! The page in a real Chromium: what a person sees, live, in both colour schemes and on a phone.
//!
//! `PEGEL_SCREENSHOTS=DIR` keeps pictures of what the test saw.

#[path = "page/fleet.rs"]
mod fleet;

use anyhow::Result;
use fleet::{HOSTILE, Site, agent, troubled};
use pegel_tests::browser::Browser;
use std::path::PathBuf;

/// Keeps a picture where somebody asked for pictures.
fn keep(browser: &mut Browser, name: &str) -> Result<()> {
    match std::env::var_os("PEGEL_SCREENSHOTS") {
        Some(dir) => browser.screenshot(&PathBuf::from(dir).join(format!("{name}.png"))),
        None => Ok(()),
    }
}

/// Looks at the page as it is, in all the shapes that people see it in, and checks that nothing runs out of it.
fn keep_all(browser: &mut Browser, name: &str) -> Result<()> {
    for (shape, width, height, dark) in [
        ("desktop", 1280, 900, false),
        ("dark", 1280, 900, true),
        ("phone", 360, 740, false),
        ("phone-dark", 360, 740, true),
    ] {
        browser.look(width, height, dark)?;
        let width_used = browser.evaluate("document.documentElement.scrollWidth")?;
        assert!(
            width_used.as_u64().unwrap() <= u64::from(width),
            "{name} needs {width_used} px where {width} are there: {}",
            browser.evaluate(
                "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 \
                 && !e.closest('.scroll')).map((e) => e.outerHTML.slice(0, 120)).join('\\n')"
            )?
        );
        keep(browser, &format!("{name}-{shape}"))?;
    }
    browser.look(1280, 900, false)
}

fn assert_no_complaints(browser: &Browser) {
    assert!(browser.complaints().is_empty(), "the console shows: {:#?}", browser.complaints());
}

#[test]
fn the_page_shows_the_fleet_and_says_why_data_is_missing() -> Result<()> {
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    let site = Site::start()?;

    // An empty fleet says what to do.
    browser.open(&site.url("/"))?;
    let empty = browser.wait_for("document.querySelector('#empty')?.innerText")?;
    let empty = empty.as_str().unwrap();
    assert!(empty.contains("No agent yet") && empty.contains("pegel pki issue"), "{empty}");
    assert!(empty.contains("site-1.example:4646"), "{empty}");
    keep_all(&mut browser, "empty")?;

    // The first agent appears without reloading.
    site.fleet.agents.lock().push(agent("acme", "web-1"));
    browser.wait_for("document.querySelector('#fleet tbody tr')?.innerText.includes('web-1')")?;
    browser.wait_for("document.querySelector('#link').innerText === 'live'")?;

    // Trouble comes first; a node whose samples do not arrive is trouble too.
    let (agents, outputs, rejects) = troubled();
    for (i, status) in agents.iter().enumerate() {
        if status.identity.node.as_str() != "cache-1" {
            site.an_hour_of(status.identity.tenant.as_str(), status.identity.node.as_str(), i as f64 * 1.7);
        }
    }
    *site.fleet.agents.lock() = agents;
    *site.fleet.outputs.lock() = outputs;
    *site.fleet.rejects.lock() = rejects;
    browser.wait_for("document.querySelectorAll('#fleet tbody tr').length === 7")?;
    let order = browser
        .evaluate("[...document.querySelectorAll('#fleet .node a')].map((a) => a.innerText).join(' ')")?;
    assert!(
        order.as_str().unwrap().starts_with("db-1 edge-frankfurt-7.example.net cache-1 web-3 "),
        "{order}"
    );
    let line = browser.evaluate("document.querySelector('#fleet tbody tr').innerText")?;
    assert!(line.as_str().unwrap().contains("401 Unauthorized"), "{line}");
    let summary = browser.evaluate("document.querySelector('#summary').innerText")?;
    assert_eq!(summary, "7 nodes, 6 connected · 2 need somebody · 2 with a warning");
    assert_eq!(browser.evaluate("document.title")?, "(2) pegel");
    keep_all(&mut browser, "fleet")?;

    // The filter narrows, a column sorts, all by keyboard.
    browser.evaluate("document.querySelector('input[type=search]').focus()")?;
    browser.type_text("globex")?;
    browser.wait_for("document.querySelectorAll('#fleet tbody tr').length === 1")?;
    browser.evaluate("{ const f = document.querySelector('input[type=search]'); f.value = ''; f.dispatchEvent(new Event('input')); }")?;
    browser.evaluate("document.querySelector('th:nth-child(8) button').focus()")?;
    browser.press("Enter")?;
    browser
        .wait_for("document.querySelector('th:nth-child(8)').getAttribute('aria-sort') === 'descending'")?;
    assert_no_complaints(&browser);
    Ok(())
}

#[test]
fn a_node_s_page_is_live_and_its_books_balance() -> Result<()> {
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    let site = Site::start()?;
    let (agents, outputs, rejects) = troubled();
    *site.fleet.agents.lock() = agents;
    *site.fleet.outputs.lock() = outputs;
    *site.fleet.rejects.lock() = rejects;
    site.an_hour_of("acme", "db-1", 0.0);

    browser.open(&site.url("/nodes/acme/db-1"))?;
    let finding = browser.wait_for("document.querySelector('#findings li')?.innerText")?;
    let finding = finding.as_str().unwrap();
    assert!(
        finding.contains("takes nothing") && finding.contains("2,346,278 samples wait on the node"),
        "{finding}"
    );
    let facts = browser.evaluate("document.querySelector('.facts').innerText")?;
    for fact in ["4 CPUs", "15.5 GiB memory", "Linux 6.12.9-amd64", "connected for 2 h"] {
        assert!(facts.as_str().unwrap().contains(fact), "{fact} in {facts}");
    }
    let cpu = browser.wait_for("document.querySelector('.chart .now').innerText.includes('%') && document.querySelector('.chart .line').getAttribute('d')")?;
    assert!(cpu.as_str().unwrap().matches('L').count() > 200, "an hour of points: {cpu}");
    let book = browser.evaluate("document.querySelector('[data-output=\"prometheus\"]').innerText")?;
    for words in ["Takes nothing: 401", "14,691,278", "12,345,000", "2,345,678", "The books balance."] {
        assert!(book.as_str().unwrap().contains(words), "{words} in {book}");
    }
    keep_all(&mut browser, "node")?;

    // The books move while one looks, and say so when they do not balance.
    {
        let mut agents = site.fleet.agents.lock();
        agents[0].books[0].parked = None;
        agents[0].books[0].delivered += 2_000_000;
        agents[0].books[0].spooled -= 1_999_990;
    }
    let book = "document.querySelector('[data-output=\"prometheus\"]').innerText";
    browser.wait_for(&format!("{book}.includes('14,345,000') && {book}.includes('off by')"))?;
    browser.wait_for("document.querySelector('#findings').innerText.includes('off by 10 samples')")?;

    // The crosshair follows the arrow keys, and its words are there for screen readers.
    browser.evaluate("document.querySelector('.chart svg').focus()")?;
    browser.press("ArrowLeft")?;
    browser.wait_for("document.querySelector('.chart svg').getAttribute('aria-label').includes('At ')")?;

    // Series by selector; a peer's label stays text.
    browser.evaluate("document.querySelector('.ask input').focus()")?;
    browser.type_text("app_queue_length")?;
    browser.press("Enter")?;
    let series = browser.wait_for("document.querySelector('.series code')?.innerText")?;
    assert!(series.as_str().unwrap().contains("<img src=x"), "{series}");
    browser.open(&site.url("/refused"))?;
    let refused = browser.wait_for("document.querySelector('#refused td:last-child')?.innerText")?;
    assert_eq!(refused, HOSTILE);
    assert_eq!(browser.evaluate("document.querySelectorAll('main img').length")?, 0);
    assert_eq!(browser.evaluate("document.title")?, "Refused · pegel");
    keep_all(&mut browser, "refused")?;
    assert_no_complaints(&browser);

    // Markup could not even be put in by mistake: the browser refuses text as HTML and inline handlers.
    for attempt in ["innerHTML = '<b>x</b>'", "setAttribute('onclick', 'document.title = 1')"] {
        let refused = browser.evaluate(&format!(
            "(() => {{ try {{ document.body.{attempt}; return 'taken'; }} catch (error) {{ return String(error); }} }})()"
        ))?;
        assert!(refused.as_str().unwrap().contains("Trusted"), "{attempt}: {refused}");
    }
    browser.forget_complaints();

    browser.open(&site.url("/nodes/acme/nobody"))?;
    browser
        .wait_for("document.querySelector('[role=alert]')?.innerText.includes('not heard of node nobody')")?;
    Ok(())
}

#[test]
fn checks_that_need_somebody_stand_on_the_first_page_and_all_on_their_own() -> Result<()> {
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    let site = Site::start()?;
    site.fleet.agents.lock().extend([agent("acme", "web-1"), agent("acme", "web-2")]);
    site.check("web-1", 1, "https://shop.example/", 1.0, None);
    site.check("web-1", 2, "https://shop.example/cart", 0.0, Some(("tls", "certificate_expired")));
    site.check("web-1", 3, HOSTILE, 1.0, Some(("processing", "timeout")));
    site.check("web-2", 1, "https://shop.example/", 1.0, None);

    browser.open(&site.url("/"))?;
    let rows = "[...document.querySelectorAll('#checks tbody tr')].map((row) => row.innerText).join('|')";
    let shown =
        browser.wait_for(&format!("document.querySelectorAll('#checks tbody tr').length === 2 && {rows}"))?;
    let shown = shown.as_str().unwrap();
    assert!(shown.starts_with("down"), "the worst comes first: {shown}");
    assert!(
        shown.contains("certificate expired in the TLS handshake") && shown.contains("up, failing"),
        "{shown}"
    );
    let words = browser.evaluate("document.querySelector('#checks .facts').innerText")?;
    assert!(words.as_str().unwrap().starts_with("1 down · 3 up"), "{words}");
    keep_all(&mut browser, "fleet-checks")?;

    browser.open(&site.url("/checks"))?;
    browser.wait_for("document.querySelectorAll('#all-checks tbody tr').length === 4")?;
    browser.evaluate("document.querySelector('input[type=search]').focus()")?;
    browser.type_text("web-2")?;
    browser.wait_for("document.querySelectorAll('#all-checks tbody tr').length === 1")?;
    assert_eq!(browser.evaluate("document.querySelectorAll('main img').length")?, 0);
    keep_all(&mut browser, "checks")?;

    browser.open(&site.url("/nodes/acme/web-1"))?;
    browser.wait_for("document.querySelectorAll('#checks tbody tr').length === 3")?;
    assert_no_complaints(&browser);
    Ok(())
}

#[test]
fn log_entries_show_as_they_arrive_filtered_paused_and_bounded() -> Result<()> {
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    let site = Site::start()?;
    site.fleet.agents.lock().extend([agent("acme", "web-1"), agent("acme", "web-2")]);
    site.log("web-1", 1, "info", &["GET / 200", "GET /cart 200"]);
    site.log("web-2", 1, "error", &["panic: out of cheese\n  at shop.rs:42", HOSTILE]);

    browser.open(&site.url("/tail"))?;
    let lines = "[...document.querySelectorAll('#tail .line')].map((line) => line.innerText).join('|')";
    browser.wait_for("document.querySelectorAll('#tail li').length === 4")?;
    browser.wait_for("document.querySelector('#link').innerText === 'live'")?;
    let shown = browser.evaluate(lines)?;
    assert!(shown.as_str().unwrap().contains(HOSTILE), "{shown}");
    assert_eq!(browser.evaluate("document.querySelectorAll('main img').length")?, 0);
    assert_eq!(browser.evaluate("document.title")?, "Logs · pegel");

    // Visible 200 ms after it came, at the latest: looked at in the page's own time.
    let seen = "new Promise((done) => { const list = document.querySelector('#tail'); \
                const watch = new MutationObserver(() => { if (list.lastChild?.innerText.includes('live at last')) { \
                watch.disconnect(); done(Date.now()); } }); watch.observe(list, { childList: true }); })";
    browser.evaluate(&format!("window.seen = {seen}; null"))?;
    let sent_ms = fleet::now_ms();
    site.log("web-1", 2, "warn", &["live at last"]);
    let seen_ms = browser.wait_for("(async () => await window.seen)()")?.as_f64().unwrap();
    assert!(seen_ms - sent_ms as f64 <= 200.0, "shown {} ms after it came", seen_ms - sent_ms as f64);
    keep_all(&mut browser, "logs")?;

    // Text narrows, and so does a query; a query that can't be read is told.
    let filter = "document.querySelector('[name=filter]')";
    let narrow = |browser: &mut Browser, text: &str| -> Result<()> {
        browser.evaluate(&format!("{{ {filter}.value = ''; {filter}.focus(); }}"))?;
        browser.type_text(text)?;
        browser.press("Enter")
    };
    narrow(&mut browser, "cart")?;
    browser.wait_for(&format!("{lines} === 'GET /cart 200'"))?;
    narrow(&mut browser, "{node=\"web-2\"} |~ \"chee.e\"")?;
    browser.wait_for(&format!(
        "{lines}.startsWith('panic: out of cheese') && document.querySelectorAll('#tail li').length === 1"
    ))?;
    browser.wait_for("document.querySelector('#tail li').dataset.level === 'bad'")?;
    narrow(&mut browser, "{node=")?;
    browser.wait_for(
        "document.querySelector('#tail [role=alert]')?.innerText.includes('cannot read the query')",
    )?;
    browser.forget_complaints();

    // A pause keeps what comes, and the list is bounded.
    narrow(&mut browser, "GET")?;
    browser.wait_for("document.querySelectorAll('#tail li').length === 2")?;
    browser.evaluate("document.querySelector('#pause').click()")?;
    site.log("web-1", 3, "info", &["GET /while-paused 200"]);
    browser.wait_for("document.querySelector('#tail-state').innerText === 'paused, 1 waiting'")?;
    assert_eq!(browser.evaluate("document.querySelectorAll('#tail li').length")?, 2);
    browser.evaluate("document.querySelector('#pause').click()")?;
    browser.wait_for(&format!("{lines}.includes('while-paused')"))?;
    let many: Vec<String> = (0..3_000).map(|n| format!("GET /{n} 200")).collect();
    site.log("web-1", 4, "info", &many.iter().map(String::as_str).collect::<Vec<_>>());
    browser.wait_for(&format!(
        "{lines}.endsWith('GET /2999 200') && document.querySelectorAll('#tail li').length === 1000"
    ))?;
    assert_no_complaints(&browser);

    // From a node's page to its logs.
    browser.open(&site.url("/nodes/acme/web-1"))?;
    browser
        .wait_for("document.querySelector('#to-logs a')?.href.endsWith('/tail?tenant=acme&node=web-1')")?;
    browser.wait_for("document.querySelector('.facts').innerText.includes('log entries')")?;
    Ok(())
}
