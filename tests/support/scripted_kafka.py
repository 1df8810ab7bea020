"""A cluster that plays prepared snapshots, in place of ``monitor.observe.kafka.source.KafkaSource``."""

from snapshots import Leaders

from monitor.errors import UnreachableError


class ScriptedKafka:
    """A cluster that plays prepared snapshots, the last one for ever; an exception in the script is raised."""

    def __init__(self, *script, log=None, reachable=True):
        self.script = list(script)
        self.leaders = Leaders(log or {})
        self.reachable = reachable
        self.closed = 0

    async def observe(self):
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, BaseException):
            raise step
        return step

    async def look_up(self, wanted):
        return self.leaders.look_up(wanted)

    async def check(self):
        if not self.reachable:
            raise UnreachableError("no broker answers at nowhere:9092: check bootstrap_servers")

    async def close(self):
        self.closed += 1
