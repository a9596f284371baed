"""From a deletion request to a model without the facts: the request, its rows, and what is made of them."""
