"""What Prometheus does with one alert at every evaluation, one after the other (rules/alerting.go)."""


def stepped(is_true, hold, keep, step):
    """Return beginnings and ends of an alert whose expression is true or not at evaluations 0, step, 2 * step, ..."""
    found, state, active_at, kept_since = [], "inactive", None, None
    for index, holds in enumerate(is_true):
        at = index * step
        if holds:
            kept_since = None
            if state == "inactive":
                state, active_at = "pending", at
        elif state == "pending":
            state = "inactive"
        elif state == "firing":
            kept_since = at if kept_since is None else kept_since
            if at - kept_since >= keep:
                state = "inactive"
                found[-1] = (found[-1][0], at)
        if state == "pending" and at - active_at >= hold:
            state = "firing"
            found.append((at, None))
    return found
