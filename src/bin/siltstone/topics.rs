//! Changelog topics: `topic create` and `topic describe`.

use std::io::Write;

use siltstone::changelog::{Changelog, Partition};

use super::args::{Shape, Stores, TopicCommand};
use super::commands::{Failure, Outcome, Result};
use super::tasks::Place;

pub(crate) fn run(command: &TopicCommand, out: &mut dyn Write) -> Result<Outcome> {
    match command {
        TopicCommand::Create { stores, shape } => create(stores, shape, out),
        TopicCommand::Describe { stores, shape } => describe(stores, shape, out),
    }
}

/// What is not as it should be, of how many topics.
fn outcome(wrong: usize, topics: usize) -> Outcome {
    if wrong == 0 {
        return Outcome::Done;
    }
    Outcome::Absent(format!(
        "{wrong} of {topics} topics are missing or differ from what they should be"
    ))
}

#[cfg(not(feature = "kafka"))]
fn create(stores: &Stores, _: &Shape, _: &mut dyn Write) -> Result<Outcome> {
    let place = Place::of(stores)?;
    if place.url.prefix().is_some() {
        place.url.open()?;
    }
    Err(no_topics(&place))
}

#[cfg(feature = "kafka")]
fn create(stores: &Stores, shape: &Shape, out: &mut dyn Write) -> Result<Outcome> {
    let place = Place::of(stores)?;
    let Some(kafka) = kafka(&place, shape)? else {
        return Err(no_topics(&place));
    };
    let topics = place.topics();
    let mut wrong = 0;
    for topic in &topics {
        if kafka.create_topic(topic)? {
            writeln!(out, "{topic}: created")?;
            continue;
        }
        writeln!(out, "{topic}: is there already")?;
        wrong += usize::from(tell_differences(&kafka, topic, out)?);
    }
    Ok(outcome(wrong, topics.len()))
}

fn no_topics(place: &Place) -> Failure {
    Failure::Usage(format!(
        "{}: a changelog in files needs no topics; a task makes its partitions when it claims them",
        place.url
    ))
}

fn describe(stores: &Stores, shape: &Shape, out: &mut dyn Write) -> Result<Outcome> {
    let place = Place::of(stores)?;
    let topics = place.topics();
    let mut wrong = 0;
    #[cfg(feature = "kafka")]
    if let Some(kafka) = kafka(&place, shape)? {
        for topic in &topics {
            let has_partitions = tell_partitions(&kafka, topic, out)?;
            let differs = has_partitions && tell_differences(&kafka, topic, out)?;
            wrong += usize::from(!has_partitions || differs);
        }
        writeln!(out, "{}", kafka.fence_expiration()?)?;
        return Ok(outcome(wrong, topics.len()));
    }
    if shape.partitions.is_some() || !shape.config.is_empty() {
        return Err(no_topics(&place));
    }
    let changelog = place.url.open()?;
    for topic in &topics {
        wrong += usize::from(!tell_partitions(&*changelog, topic, out)?);
    }
    Ok(outcome(wrong, topics.len()))
}

/// Prints where the partitions of a topic start and end. False if there are none.
fn tell_partitions(changelog: &dyn Changelog, topic: &str, out: &mut dyn Write) -> Result<bool> {
    for number in 0.. {
        let partition = Partition::new(topic, number);
        let Some(bounds) = changelog.bounds(&partition)? else {
            if number == 0 {
                writeln!(out, "{topic}: there is no such topic")?;
            }
            return Ok(number > 0);
        };
        let (start, end) = (bounds.start, bounds.end);
        writeln!(out, "{partition}: offsets {start} to {end}")?;
    }
    unreachable!("a topic has fewer partitions than there are numbers")
}

/// The changelog, if it is on Kafka, with what its topics should be.
#[cfg(feature = "kafka")]
fn kafka(place: &Place, shape: &Shape) -> Result<Option<siltstone::kafka::Kafka>> {
    use super::args::Preset;
    use siltstone::kafka::{Kafka, TopicOptions};

    let Some(options) = place.url.kafka_options()? else {
        return Ok(None);
    };
    let mut topics = match shape.preset {
        Preset::Siltstone => TopicOptions::new(),
        Preset::KafkaStreams => TopicOptions::kafka_streams(),
        Preset::Samza => TopicOptions::samza(),
    };
    if let Some(partitions) = shape.partitions {
        topics = topics.partitions(partitions);
    }
    if let Some(factor) = shape.replication {
        topics = topics.replication_factor(factor);
    }
    for config in &shape.config {
        let Some((name, value)) = config.split_once('=') else {
            return Err(Failure::Usage(format!(
                "--config {config}: expected NAME=VALUE"
            )));
        };
        topics = topics.config(name, value);
    }
    Ok(Some(Kafka::open(options.topics(topics))?))
}

/// Prints how an existing topic differs from what it should be; true if it does.
#[cfg(feature = "kafka")]
fn tell_differences(
    kafka: &siltstone::kafka::Kafka,
    topic: &str,
    out: &mut dyn Write,
) -> Result<bool> {
    let differences = kafka.topic_differences(topic)?;
    for difference in &differences {
        let found = difference.found.as_deref().unwrap_or("not told");
        let (name, wanted) = (&difference.name, &difference.wanted);
        writeln!(out, "{topic}: {name} is {found}, should be {wanted}")?;
    }
    Ok(!differences.is_empty())
}
